"""usage: replay.py take | replay.py use BLOB PORT

take: connect as an application without privileges, and read the records of
one's own socket. use: set records that one was given, and connect elsewhere.
"""

import json
import socket
import sys

import wb

wb.drop_privileges()


def report_of(sock):
    text = b""
    while data := sock.recv(4096):
        text += data
    return json.loads(text)


with socket.socket() as sock:
    if sys.argv[1] == "take":
        sock.connect(("192.0.2.1", 8080))
        blob = wb.query(sock, wb.RECORDS)
        wb.report(blob=blob.hex(), set=wb.name(wb.set_errno(socket.socket(), blob)), report=report_of(sock))
    else:
        sock.setsockopt(wb.SOL_WAYBILL, wb.RECORDS, bytes.fromhex(sys.argv[2]))
        sock.connect(("192.0.2.1", int(sys.argv[3])))
        wb.report(report=report_of(sock))
