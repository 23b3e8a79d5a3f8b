"""usage: blobs.py APP_CGROUP HOPS: as provider a, print valid records of 1, 2, … HOPS hops as hex, a line each.

The providers after a listen. Of a socket that was redirected to them, the
records are those that it carries and the newest hop.
"""

import socket
import sys

import wb

ORIGIN = ("127.0.0.1", 8080)

with socket.create_server(("127.0.0.1", 7001)) as listener:
    wb.hold_connection(sys.argv[1], ORIGIN)
    conn, _ = listener.accept()
    blob = wb.query(conn, wb.RECORDS)
print(blob.hex())
for _ in range(int(sys.argv[2]) - 1):
    with socket.socket() as sock:
        sock.setsockopt(wb.SOL_WAYBILL, wb.RECORDS, blob)
        sock.connect(ORIGIN)
        blob = wb.query(sock, wb.RECORDS)
    print(blob.hex())
