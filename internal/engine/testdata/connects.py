"""usage: connects.py WAY [CARRIER_CGROUP]

Connect to the origin in one of many ways and print what the proxy saw. With a
cgroup, run as provider a and carry the records of a connection that a client
in that cgroup opens.
"""

import ctypes
import errno
import os
import select
import socket
import sys

import wb

ORIGIN = ("127.0.0.1", 8080)
MSG_FASTOPEN = 0x20000000
TCP_FASTOPEN_CONNECT = 30
AF_UNSPEC = b"\0" * 16

records = b""


def tcp():
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if records:
        sock.setsockopt(wb.SOL_WAYBILL, wb.RECORDS, records)
    return sock


def listen_and_take_records(client_cgroup):
    with socket.create_server(("127.0.0.1", 7001)) as listener:
        wb.hold_connection(client_cgroup, ORIGIN)
        conn, _ = listener.accept()
        return wb.query(conn, wb.RECORDS)


def read(sock):
    data = b""
    while chunk := sock.recv(4096):
        data += chunk
    return data.decode()


def disconnect(sock):
    """connect(AF_UNSPEC): the socket is as new, no hook runs."""
    wb.libc.connect(sock.fileno(), AF_UNSPEC, len(AF_UNSPEC))


def plain():
    with tcp() as sock:
        sock.connect(ORIGIN)
        return read(sock)


def nonblocking():
    with tcp() as sock:
        sock.setblocking(False)
        assert sock.connect_ex(ORIGIN) in (0, errno.EINPROGRESS)
        sock.connect_ex(ORIGIN)  # while in progress, or connected: no hook runs
        select.select([], [sock], [], 10)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        sock.setblocking(True)
        return read(sock)


def after_refused():
    """A connect that fails, to an address that nobody wants, and then another on the same socket."""
    with tcp() as sock:
        assert sock.connect_ex(("127.0.0.1", 8089)) == errno.ECONNREFUSED
        sock.connect(ORIGIN)
        return read(sock)


def after_stuck():
    """Redirected to a proxy that does not answer, given up, and again: the first hop must be gone."""
    wb.drop_packets_to(7002 if records else 7001)
    with tcp() as sock:
        sock.setblocking(False)
        for _ in range(3):
            assert sock.connect_ex(ORIGIN) == errno.EINPROGRESS
            assert sock.connect_ex(ORIGIN) == errno.EALREADY
            disconnect(sock)
        wb.drop_no_packets()
        sock.setblocking(True)
        sock.connect(ORIGIN)
        return read(sock)


def set_again_after_failure():
    """A socket whose redirected connect was given up takes records again."""
    wb.drop_packets_to(7002)
    with tcp() as sock:
        sock.setblocking(False)
        assert sock.connect_ex(ORIGIN) == errno.EINPROGRESS
        assert wb.set_errno(sock, records) == errno.EINVAL
        disconnect(sock)
        assert wb.set_errno(sock, records) == 0
        wb.drop_no_packets()
        sock.setblocking(True)
        sock.connect(ORIGIN)
        return read(sock)


def fast_open_passive():
    """How many connections the kernel accepted with data in the SYN."""
    with open("/proc/self/net/netstat") as f:
        names, values = [line.split() for line in f if line.startswith("TcpExt:")]
    return int(values[names.index("TCPFastOpenPassive")])


def fast_open_sendto():
    plain_fast_open()  # fetches the cookie
    before = fast_open_passive()
    answer = plain_fast_open()
    assert fast_open_passive() > before, "no data in the SYN"
    return answer


def plain_fast_open():
    with tcp() as sock:
        sock.sendto(b"hello", MSG_FASTOPEN, ORIGIN)
        sock.shutdown(socket.SHUT_WR)
        return read(sock)


def fast_open_connect():
    """connect() returns at once and the SYN leaves with the first write."""
    plain_fast_open()
    before = fast_open_passive()
    with tcp() as sock:
        sock.setsockopt(socket.SOL_TCP, TCP_FASTOPEN_CONNECT, 1)
        sock.connect(ORIGIN)
        if records:
            assert wb.set_errno(sock, records) == errno.EINVAL, "SET between connect and SYN"
        sock.sendall(b"hello")
        sock.shutdown(socket.SHUT_WR)
        answer = read(sock)
    assert fast_open_passive() > before, "no data in the SYN"
    return answer


def bound_source():
    with tcp() as sock:
        sock.bind(("192.0.2.1", 0))
        sock.connect(ORIGIN)
        return read(sock)


def bound_to_loopback_device():
    with tcp() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        sock.connect(ORIGIN)
        return read(sock)


def from_a_thread():
    """The origin's tgid must be the process's, its pid the thread's."""
    import threading

    result = []
    thread = threading.Thread(target=lambda: result.append(plain()))
    thread.start()
    thread.join()
    return result[0]


if __name__ == "__main__":
    way = sys.argv[1]
    if len(sys.argv) > 2:
        records = listen_and_take_records(sys.argv[2])
    print(globals()[way](), end="")
