"""usage: inherit.py SCENARIO CLIENT_CGROUP [OTHER_CGROUP]

As provider a, accept connections and dial their original destination without
setting records. Print, in a line of JSON, the flow of each connection that was
accepted and what the proxy of b says of each that was dialled.
"""

import json
import socket
import struct
import sys
import threading

import wb

ORIGIN, BESIDE = ("192.0.2.1", 8080), ("192.0.2.2", 8080)

listener = socket.create_server(("127.0.0.1", 7001))
accepted, dialled = [], []
open_conns = []  # Python closes what nobody refers to


def accept(client=wb.hold_connection):
    pid = client(sys.argv[2], ORIGIN)
    conn, _ = listener.accept()
    open_conns.append(conn)
    accepted.append({"flow": wb.origin(conn)["flow"], "tgid": pid})
    return conn


def ask(conn):
    conn.getsockopt(socket.SOL_IP, wb.SO_ORIGINAL_DST, 16)


def dial(dst=ORIGIN, sock=None):
    with sock or socket.socket() as upstream:
        upstream.connect(dst)
        dialled.append(json.loads(upstream.makefile().readline()))


def one():
    accept()
    dial()


def asked():
    ask(accept())
    dial()


def two():
    """Nobody can tell which of the two is forwarded; then only one is left."""
    conns = [accept(), accept()]
    dial()
    dial()


def two_asked():
    """Each is asked about by the thread that forwards it, the newer one first."""
    conns = [accept(), accept()]
    for conn in reversed(conns):
        thread = threading.Thread(target=lambda: (ask(conn), dial()))
        thread.start()
        thread.join()


def again():
    """The only connection is forwarded a second time: a proxy tries again."""
    accept()
    dial()
    dial()


def two_and_again():
    """Of two that are forwarded nobody can tell which is meant."""
    two_asked()
    dial()


def elsewhere():
    accept()
    dial(BESIDE)


def closed():
    conn = accept()
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # gone at once
    conn.close()
    dial()


def forward(conn):
    """By records that are set, on another socket."""
    with socket.socket() as sock:
        assert wb.set_errno(sock, wb.query(conn, wb.RECORDS)) == 0


def forwarded():
    forward(accept())
    dial()


def forwarded_one_of_two():
    """What is not forwarded comes first."""
    conn = accept()
    accept()
    forward(conn)
    dial()


def half_closed():
    """The client has sent all it had to say, and is gone."""

    def send(cgroup, address):
        def run():
            with socket.create_connection(address) as sock:
                sock.sendall(b"hello")

        return wb.fork_into(cgroup, run)

    conn = accept(send)
    while conn.recv(10):
        pass
    dial()


def dial_again(dst):
    """On the socket that took the records over."""
    accept()
    sock = socket.socket()
    sock.connect(ORIGIN)
    wb.libc.connect(sock.fileno(), b"\0" * 16, 16)
    dial(dst, sock)


def reused():
    dial_again(BESIDE)


def same_socket():
    dial_again(ORIGIN)


def other_provider():
    """A process of another provider's dials the destination of a's connection, and then a does."""
    accept()
    wb.wait_for(wb.fork_into(sys.argv[3], lambda: socket.create_connection(ORIGIN).close()))
    dial()


globals()[sys.argv[1]]()
wb.report(accepted=accepted, dialled=dialled)
