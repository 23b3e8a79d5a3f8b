#!/usr/bin/env python3
"""A transparent proxy that passes redirect records on, with two socket calls.

usage: proxy.py ADDRESS PORT

It logs where each connection was going and which process opened it, and
relays the bytes. There is no library: the numbers are those of
include/waybill.h.
"""

import socket
import struct
import sys
import threading

SOL_WAYBILL = 0x5742
REDIRECT_RECORDS = 1
ORIGINAL_DST = 3
ORIGIN = 4
RECORDS_MAX = 1024


def original_dst(conn):
    """Decode a struct sockaddr_in or sockaddr_in6 into (family, address)."""
    raw = conn.getsockopt(SOL_WAYBILL, ORIGINAL_DST, 28)
    family, port = struct.unpack_from("=H", raw)[0], struct.unpack_from("!H", raw, 2)[0]
    ip = raw[4:8] if family == socket.AF_INET else raw[8:24]
    return family, (socket.inet_ntop(family, ip), port)


def origin(conn):
    """Return the original process's (tgid, name)."""
    raw = conn.getsockopt(SOL_WAYBILL, ORIGIN, 64)
    return struct.unpack_from("=I", raw, 4)[0], raw[48:64].split(b"\0")[0].decode()


def relay(source, target):
    """Copy one direction and pass on the end of the stream."""
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def serve(conn):
    with conn:
        try:
            records = conn.getsockopt(SOL_WAYBILL, REDIRECT_RECORDS, RECORDS_MAX)
            family, dst = original_dst(conn)
            tgid, name = origin(conn)
        except OSError as e:
            print(f"not redirected: {e}", flush=True)
            return
        print(f"{name}[{tgid}] -> {dst[0]} {dst[1]}", flush=True)
        with socket.socket(family, socket.SOCK_STREAM) as upstream:
            upstream.setsockopt(SOL_WAYBILL, REDIRECT_RECORDS, records)
            try:
                upstream.connect(dst)
            except OSError as e:
                print(f"connect to {dst[0]} {dst[1]}: {e}", flush=True)
                return
            back = threading.Thread(target=relay, args=(upstream, conn))
            back.start()
            relay(conn, upstream)
            back.join()


def main():
    address, port = sys.argv[1], int(sys.argv[2])
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    both = address == "::"  # then IPv4 arrives here too
    with socket.create_server((address, port), family=family, backlog=1024, dualstack_ipv6=both) as listener:
        print("ready", flush=True)
        while True:
            conn, _ = listener.accept()
            threading.Thread(target=serve, args=(conn,), daemon=True).start()


if __name__ == "__main__":
    main()
