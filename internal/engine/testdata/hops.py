"""usage: hops.py ADDRESS PORT APP_CGROUP: as the last proxy, print how connect() to one more goes."""

import socket
import sys

import wb

with socket.create_server((sys.argv[1], int(sys.argv[2]))) as listener:
    wb.hold_connection(sys.argv[3], ("127.0.0.1", 8080))
    conn, _ = listener.accept()
    state, hops = wb.state(conn)
    blob = wb.query(conn, wb.RECORDS)
    with socket.socket() as sock:
        sock.setsockopt(wb.SOL_WAYBILL, wb.RECORDS, blob)
        error = wb.name(sock.connect_ex(("127.0.0.1", 8080)))
    with socket.socket() as sock:  # what no provider wants is not refused
        sock.setsockopt(wb.SOL_WAYBILL, wb.RECORDS, blob)
        other = wb.name(sock.connect_ex(("127.0.0.1", 8081)))
    wb.report(hops=hops, size=len(blob), error=error, other=other)
