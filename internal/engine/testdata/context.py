"""usage: context.py APP_CGROUP B_CGROUP

As provider a, accept a connection with a context, and let processes of several
kinds read it.
"""

import os
import socket
import sys

import wb

app, b = sys.argv[1:3]


def read_in(cgroup, conn, prepare=lambda: None):
    """What a process in another cgroup gets; it holds the same socket."""
    read, write = os.pipe()

    def ask():
        prepare()
        err = wb.query_errno(conn, wb.CONTEXT)
        os.write(write, wb.name(err).encode() if err else wb.query(conn, wb.CONTEXT))

    os.waitpid(wb.fork_into(cgroup, ask), 0)
    return os.read(read, 2048).decode()


with socket.create_server(("127.0.0.1", 7001)) as listener:
    wb.hold_connection(app, ("127.0.0.1", 8080))
    conn, _ = listener.accept()
    wb.report(
        own=wb.query(conn, wb.CONTEXT).decode(),
        other=read_in(b, conn),
        admin=read_in(app, conn),
        nobody=read_in(app, conn, wb.drop_privileges),
    )
