"""usage: original_dst.py APP_CGROUP: SO_ORIGINAL_DST of both levels on sockets of a dual-stack listener."""

import ctypes
import socket
import sys

import wb


def ask(conn, level, size):
    buffer = ctypes.create_string_buffer(size)
    err, length = wb.getsockopt(conn.fileno(), level, wb.SO_ORIGINAL_DST, buffer, size)
    return wb.name(err) if err else f"{wb.sockaddr(buffer.raw)} in {length}"


with socket.create_server(("::", 7001), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
    for host, family in (("::1", socket.AF_INET6), ("127.0.0.1", socket.AF_INET), ("::ffff:127.0.0.1", socket.AF_INET6)):
        wb.hold_connection(sys.argv[1], (host, 8080), family)
        conn, _ = listener.accept()
        for level, name in ((socket.SOL_IP, "SOL_IP"), (socket.IPPROTO_IPV6, "SOL_IPV6")):
            for size in (15, 16, 27, 28, 128):
                print(f"{host} {name} {size}: {ask(conn, level, size)}")
        conn.close()
