"""usage: client.py HOST PORT: connect, ask for a line, report what the application sees."""

import socket
import sys

import wb

host, port = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
with socket.socket(family, socket.SOCK_STREAM) as sock:
    sock.settimeout(10)
    try:
        sock.connect((host, port))
    except OSError as e:
        wb.report(error=wb.name(e.errno))
        sys.exit()
    peer = sock.getpeername()
    sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
    answer = b""
    while data := sock.recv(4096):
        answer += data
    wb.report(peer=f"{peer[0]} {peer[1]}", answer=answer.decode(), error="")
