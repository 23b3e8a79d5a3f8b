"""usage: unaware.py ADDRESS PORT

A transparent proxy that knows nothing of waybill: it asks SO_ORIGINAL_DST and
relays, as proxies behind netfilter do.
"""

import socket
import struct
import sys
import threading

SO_ORIGINAL_DST = 80


def relay(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def serve(conn):
    if conn.family == socket.AF_INET:
        raw = conn.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
        ip = raw[4:8]
    else:
        raw = conn.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28)
        ip = raw[8:24]
    dst = (socket.inet_ntop(conn.family, ip), struct.unpack_from("!H", raw, 2)[0])
    print("->", *dst, flush=True)
    with conn, socket.socket(conn.family) as upstream:
        upstream.connect(dst)
        back = threading.Thread(target=relay, args=(upstream, conn))
        back.start()
        relay(conn, upstream)
        back.join()


address = sys.argv[1]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
with socket.create_server((address, int(sys.argv[2])), family=family) as listener:
    print("ready", flush=True)
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
