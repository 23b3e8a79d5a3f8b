"""Be redirected to a proxy whose answer takes its time; print what it saw."""

import errno
import select
import socket

ORIGIN = ("127.0.0.1", 8080)

with socket.socket() as sock:
    sock.bind(("127.0.0.1", 40000))
    sock.setblocking(False)
    assert sock.connect_ex(ORIGIN) == errno.EINPROGRESS
    print("ready", flush=True)
    select.select([], [sock], [], 20)
    sock.setblocking(True)
    print(sock.recv(4096).decode().strip(), flush=True)
