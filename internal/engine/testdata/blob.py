"""usage: blob.py APP_CGROUP: print the records of one redirected connection as hex."""

import socket
import sys

import wb

with socket.create_server(("127.0.0.1", 7001)) as listener:
    wb.hold_connection(sys.argv[1], ("127.0.0.1", 8080))
    conn, _ = listener.accept()
    print(wb.query(conn, wb.RECORDS).hex())
