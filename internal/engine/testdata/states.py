"""usage: states.py APP_CGROUP OTHER_CGROUP: as provider a, print the state of connections at several places."""

import json
import os
import socket
import sys

import wb

app, other = sys.argv[1:3]
ORIGIN, UNWANTED = ("127.0.0.1", 8080), ("127.0.0.1", 8081)


def state_in(cgroup, sock):
    """The state that a process in another cgroup sees of a socket handed to it."""
    read, write = os.pipe()
    os.waitpid(wb.fork_into(cgroup, lambda: os.write(write, json.dumps(wb.state(sock)).encode())), 0)
    return json.loads(os.read(read, 100))


with socket.create_server(UNWANTED), socket.create_server(("127.0.0.1", 7001)) as listener:
    fresh = socket.create_connection(UNWANTED)
    wb.hold_connection(app, ORIGIN)
    conn, _ = listener.accept()
    upstream = socket.socket()
    upstream.setsockopt(wb.SOL_WAYBILL, wb.RECORDS, wb.query(conn, wb.RECORDS))
    upstream.connect(ORIGIN)
    wb.report(fresh=wb.state(fresh), accepted=wb.state(conn), upstream=wb.state(upstream), other=state_in(other, conn))
