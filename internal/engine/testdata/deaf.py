"""usage: deaf.py ADDRESS PORT BACKLOG

A proxy that listens and accepts nothing until it is sent SIGUSR1. Then it says
"heard" to whoever comes and tells what it is called.
"""

import signal
import socket
import sys

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
listener = socket.create_server((sys.argv[1], int(sys.argv[2])), family=family, backlog=int(sys.argv[3]),
                                dualstack_ipv6=sys.argv[1] == "::")
print("ready", flush=True)
signal.sigwait([signal.SIGUSR1])
while True:
    conn, _ = listener.accept()
    with conn:
        try:
            host, port = conn.getsockname()[:2]
            conn.sendall(f"heard by {host} {port}".encode())
            conn.shutdown(socket.SHUT_WR)
            while conn.recv(4096):
                pass
        except OSError:
            pass
