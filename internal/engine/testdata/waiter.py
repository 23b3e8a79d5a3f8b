"""usage: waiter.py

Connect to the origin, say so, and print what comes of it.
"""

import socket

import wb

with socket.create_connection(("192.0.2.1", 8080)) as sock:
    sock.sendall(b"hello")
    print("ready", flush=True)
    sock.settimeout(20)
    try:
        print(sock.recv(4096).decode(), flush=True)
    except OSError as e:
        print(wb.name(e.errno) if e.errno else "timeout", flush=True)
