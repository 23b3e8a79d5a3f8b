"""usage: elsewhere.py LISTEN_PORT ADDRESS PORT

A proxy that carries records on, but to ADDRESS:PORT, whatever its client asked
for. It prints how its connect() goes.
"""

import socket
import sys

import wb

with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    print("ready", flush=True)
    while True:
        conn, _ = listener.accept()
        with conn, socket.socket() as upstream:
            upstream.setsockopt(wb.SOL_WAYBILL, wb.RECORDS, wb.query(conn, wb.RECORDS))
            error = upstream.connect_ex((sys.argv[2], int(sys.argv[3])))
            print("connect:", wb.name(error), flush=True)
            if not error:
                upstream.sendall(conn.recv(4096))
                conn.sendall(upstream.recv(4096))
