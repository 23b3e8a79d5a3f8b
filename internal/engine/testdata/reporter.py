"""usage: reporter.py ADDRESS PORT [hold]

A proxy that forwards nothing: it tells each client, in a line of JSON, what
the records of the connection say. With `hold` it leaves its first client
without an answer.
"""

import json
import socket
import sys

import wb

address, port = sys.argv[1], int(sys.argv[2])
TCP_FASTOPEN = 23

listener = socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                                dualstack_ipv6=address == "::")
listener.setsockopt(socket.SOL_TCP, TCP_FASTOPEN, 128)
print("ready", flush=True)
if "hold" in sys.argv:
    held, _ = listener.accept()
while True:
    conn, _ = listener.accept()
    with conn:
        try:
            state, hops = wb.state(conn)
            seen = {"state": state, "hops": hops, "error": ""}
            if hops:
                seen |= {"dst": wb.sockaddr(wb.query(conn, wb.ORIGINAL_DST)), **wb.origin(conn)}
                err = wb.query_errno(conn, wb.CONTEXT)
                seen["context"] = wb.name(err) if err else wb.query(conn, wb.CONTEXT).decode()
        except OSError as e:
            seen = {"error": wb.name(e.errno)}
        try:
            conn.sendall(json.dumps(seen).encode() + b"\n")
            conn.shutdown(socket.SHUT_WR)
            while conn.recv(4096):  # or the close would turn unread data into a reset
                pass
        except OSError:
            pass
