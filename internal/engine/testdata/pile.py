"""usage: pile.py COUNT

Open COUNT connections to a proxy that accepts none, then one more; print how
the last one went; then close all.
"""

import errno
import socket
import sys

import wb

ORIGIN = ("127.0.0.1", 8080)
pile = []
for _ in range(int(sys.argv[1])):
    sock = socket.socket()
    sock.setblocking(False)
    err = sock.connect_ex(ORIGIN)
    assert err == errno.EINPROGRESS, wb.name(err)
    pile.append(sock)
with socket.socket() as sock:
    err = sock.connect_ex(ORIGIN)
    answer = ""
    if err == 0:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = sock.recv(4096).decode()
wb.report(error=wb.name(err) if err else "", answer=answer)
for sock in pile:
    sock.close()
