"""Use every kind of socket that is not TCP over IP, to the origin's address and port; print what each does, a line each."""

import socket
import struct

import wb

OUTSIDE, OUTSIDE6, PORT = "192.0.2.1", "2001:db8::1", 8080
VMADDR_CID_LOCAL = 1
IPPROTO_UDPLITE, IPPROTO_SCTP, IPPROTO_SMC = 136, 132, 43


def say(what, function):
    try:
        print(what, function(), flush=True)
    except OSError as e:
        print(what, wb.name(e.errno) if e.errno else e, flush=True)


def datagram(family, address, protocol=0):
    """A datagram there and back, connected and not."""
    with socket.socket(family, socket.SOCK_DGRAM, protocol) as server, \
            socket.socket(family, socket.SOCK_DGRAM, protocol) as client:
        server.settimeout(5)
        client.settimeout(5)
        server.bind((address, PORT))
        client.sendto(b"unconnected", (address, PORT))
        first, source = server.recvfrom(100)
        server.sendto(b"back", source)
        back, peer = client.recvfrom(100)
        client.connect((address, PORT))
        client.send(b"connected")
        return first, back, peer[:2], client.getpeername()[:2], server.recv(100)


def raw():
    """A TCP header of our own making: who may do that needs no connect()."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as sock:
        sock.settimeout(5)
        sock.connect((OUTSIDE, PORT))
        sock.send(struct.pack("!HHIIBBHHH", 4242, PORT, 1, 0, 5 << 4, 2, 1024, 0, 0))
        return sock.getpeername(), len(sock.recv(100))


def stream(family, address, protocol=0):
    with socket.socket(family, socket.SOCK_STREAM, protocol) as server, \
            socket.socket(family, socket.SOCK_STREAM, protocol) as client:
        server.bind(address)
        server.listen()
        client.connect(address)
        conn, _ = server.accept()
        with conn:
            client.sendall(b"bytes")
            return conn.recv(100), client.getpeername()


def vsock():
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as sock:
        sock.settimeout(1)
        return sock.connect((VMADDR_CID_LOCAL, PORT))


def options(sock):
    """Option 80 of a socket that is none of ours."""
    with sock:
        return wb.name(wb.query_errno(sock, wb.SO_ORIGINAL_DST, 16, socket.SOL_IP))


say("UDP", lambda: datagram(socket.AF_INET, OUTSIDE))
say("UDP6", lambda: datagram(socket.AF_INET6, OUTSIDE6))
say("UDP-Lite", lambda: datagram(socket.AF_INET, OUTSIDE, IPPROTO_UDPLITE))
say("raw", raw)
say("SCTP", lambda: stream(socket.AF_INET, (OUTSIDE, PORT), IPPROTO_SCTP))
say("SMC", lambda: stream(socket.AF_SMC if hasattr(socket, "AF_SMC") else 43, (OUTSIDE, PORT)))
say("vsock", vsock)
say("unix", lambda: stream(socket.AF_UNIX, "\0waybill-untouched"))
say("unix datagram", lambda: [s.close() for s in socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)])
say("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).getsockname()[1] >= 0)
say("options of UDP", lambda: options(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
say("options of unix", lambda: options(socket.socket(socket.AF_UNIX)))
