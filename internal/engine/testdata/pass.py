"""usage: pass.py STRANGER_CGROUP ADDRESS

As provider a, listen; then a process in another cgroup listens on the same port.
"""

import os
import socket
import sys

import wb


def listen():
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((sys.argv[2], 7001))
    sock.listen(64)
    return sock


def serve(who, sock):
    while True:
        conn, _ = sock.accept()
        with conn:
            err = wb.query_errno(conn, wb.RECORDS)
            conn.sendall(f"{who} {wb.name(err)}".encode())


read, write = os.pipe()


def stranger():
    sock = listen()
    os.write(write, b"x")
    serve("stranger", sock)


own = listen()
wb.fork_into(sys.argv[1], stranger)
os.read(read, 1)
print("ready", flush=True)
serve("provider", own)
