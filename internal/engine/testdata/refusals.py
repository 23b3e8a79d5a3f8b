"""Connect to addresses at which nobody can be reached, and print why."""

import socket

import wb

for host, port in (
    ("127.0.0.1", 9), ("127.1.2.3", 9), ("::1", 9), ("0.0.0.0", 9),
    ("224.0.0.1", 80), ("ff02::1", 80),
):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.settimeout(5)
        print(host, port, wb.name(sock.connect_ex((host, port))))
