"""usage: listen.py ADDRESS PORT [COUNT]: listen and answer "stranger" to whoever connects."""

import socket
import sys

with socket.create_server((sys.argv[1], int(sys.argv[2]))) as listener:
    print("ready", flush=True)
    while True:
        conn, _ = listener.accept()
        with conn:
            conn.sendall(b"stranger")
