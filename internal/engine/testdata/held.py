"""Be redirected to a proxy that does not answer yet; when told to (UDP port 9999), let it; print what it saw."""

import errno
import select
import socket

import wb

ORIGIN = ("127.0.0.1", 8080)

wb.fill_backlog(("127.0.0.1", 7001))
orders = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
orders.bind(("127.0.0.1", 9999))
with socket.socket() as sock:
    sock.bind(("127.0.0.1", 40000))
    sock.setblocking(False)
    assert sock.connect_ex(ORIGIN) == errno.EINPROGRESS
    print("ready", flush=True)
    orders.recv(1)
    orders.sendto(b"x", ("127.0.0.1", 7001))
    select.select([], [sock], [], 20)
    sock.setblocking(True)
    print(sock.recv(4096).decode().strip(), flush=True)
