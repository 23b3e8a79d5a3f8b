"""usage: reuse.py APP_CGROUP

As provider a, use sockets a second time in every way, and print what came of it.
"""

import ctypes
import errno
import os
import socket
import sys

import wb

app = sys.argv[1]
ORIGIN = ("127.0.0.1", 8080)
TCP_FASTOPEN_CONNECT = 30
AF_UNSPEC = b"\0" * 16


def disconnect(sock):
    wb.libc.connect(sock.fileno(), AF_UNSPEC, len(AF_UNSPEC))


def set_after_no_port(records):
    """connect() fails with EADDRNOTAVAIL before there is a SYN, and the socket takes records again."""
    with socket.socket() as first, socket.socket() as second:
        for sock in (first, second):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(("127.0.0.1", 45678))
            sock.setsockopt(wb.SOL_WAYBILL, wb.RECORDS, records)
        first.connect(ORIGIN)
        failed = second.connect_ex(ORIGIN)
        return f"{wb.name(failed)} {wb.name(wb.set_errno(second, records))}"


def set_after_deferred(records):
    """TCP_FASTOPEN_CONNECT defers the SYN; given up before that, the socket takes records again."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_TCP, TCP_FASTOPEN_CONNECT, 1)
        sock.setsockopt(wb.SOL_WAYBILL, wb.RECORDS, records)
        sock.connect(ORIGIN)
        before = wb.set_errno(sock, records)
        disconnect(sock)
        return f"{wb.name(before)} {wb.name(wb.set_errno(sock, records))}"


def accepted_again(conn):
    """An accepted socket that is disconnected carries nothing into its next connection."""
    disconnect(conn)
    conn.connect(ORIGIN)
    return "%d %d" % wb.state(conn)


def context_of_another(records):
    """b wants the connection and has a context, but is down: a must not see that context on its own socket."""
    with socket.socket() as sock:
        sock.setsockopt(wb.SOL_WAYBILL, wb.RECORDS, records)
        sock.connect(ORIGIN)
        err = wb.query_errno(sock, wb.CONTEXT)
        return wb.name(err) if err else wb.query(sock, wb.CONTEXT).decode()


with socket.create_server(("127.0.0.1", 7001)) as listener:
    wb.hold_connection(app, ORIGIN)
    conn, _ = listener.accept()
    records = wb.query(conn, wb.RECORDS)
    wb.report(
        noport=set_after_no_port(records),
        deferred=set_after_deferred(records),
        context=context_of_another(records),
        accepted=accepted_again(conn),
    )
