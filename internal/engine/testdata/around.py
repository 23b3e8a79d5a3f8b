"""usage: around.py WAY [BLACK_HOLE_ADDRESS]

Try to reach the origin past the proxies, as a program without privileges does,
and print what is found at the other end: what a proxy saw of the connection,
the origin's answer, or the error.
"""

import errno
import json
import socket
import struct
import sys
import time

import wb

OUTSIDE, OUTSIDE6, PORT = "192.0.2.1", "2001:db8::1", 8080
IPPROTO_MPTCP = 262
SO_BINDTODEVICE = 25
IP_OPTIONS = 4


def tcp(family=socket.AF_INET, protocol=0):
    sock = socket.socket(family, socket.SOCK_STREAM, protocol)
    sock.settimeout(10)
    return sock


def ask(sock):
    """What is at the other end of a connected socket."""
    sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
    text = b""
    while data := sock.recv(4096):
        text += data
    if text.startswith(b"{"):
        return json.loads(text)
    return {"answer": text.decode()}


def reach(sock, address):
    with sock:
        sock.connect(address)
        return ask(sock)


def plain():
    return reach(tcp(), (OUTSIDE, PORT))


def mapped():
    return reach(tcp(socket.AF_INET6), ("::ffff:" + OUTSIDE, PORT))


def mptcp():
    return reach(tcp(protocol=IPPROTO_MPTCP), (OUTSIDE, PORT))


def mptcp6():
    return reach(tcp(socket.AF_INET6, IPPROTO_MPTCP), (OUTSIDE6, PORT))


def unspecified():
    return reach(tcp(), ("0.0.0.0", PORT))


def unspecified6():
    return reach(tcp(socket.AF_INET6), ("::", PORT))


def unspecified6_from_mapped():
    """Bound to an IPv4-mapped address, a socket takes :: for 127.0.0.1."""
    sock = tcp(socket.AF_INET6)
    sock.bind(("::ffff:127.0.0.1", 0))
    return reach(sock, ("::", PORT))


def sendto_without_connect():
    with tcp() as sock:
        sock.sendto(b"GET / HTTP/1.0\r\n\r\n", (OUTSIDE, PORT))
        return ask(sock)


def bound_to_device():
    sock = tcp()
    sock.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, b"elsewhere")
    return reach(sock, ("192.0.2.66", PORT))


def without_option_memory():
    sock = tcp()
    assert wb.fill_option_memory(sock) in (errno.ENOMEM, errno.ENOBUFS)
    return reach(sock, (OUTSIDE, PORT))


def unanswered():
    """Connections in mid-handshake: signed, so that the proxy's end drops the SYN."""
    socks = [tcp() for _ in range(int(sys.argv[2]))]
    for sock in socks:
        wb.sign(sock, socket.inet_aton("127.0.0.1"))
        sock.setblocking(False)
        sock.connect_ex((OUTSIDE, PORT))
    return socks


def after_unanswered():
    """With a user's share of the map of those in flight in use."""
    held = unanswered()
    found = plain()
    del held
    return found


def hold_unanswered():
    held = unanswered()
    print("ready", flush=True)
    time.sleep(60)
    del held


def loose_source_route():
    """The destination is one that nobody wants; the first address on the way there is another."""
    sock = tcp()
    sock.setsockopt(socket.SOL_IP, IP_OPTIONS, struct.pack("=BBB4sx", 131, 7, 4, socket.inet_aton(sys.argv[2])))
    sock.settimeout(1)
    return reach(sock, (OUTSIDE, PORT))


if __name__ == "__main__":
    wb.drop_privileges()
    try:
        print(json.dumps(globals()[sys.argv[1]]()))
    except OSError as e:
        wb.report(error=wb.name(e.errno) if e.errno else str(e))
