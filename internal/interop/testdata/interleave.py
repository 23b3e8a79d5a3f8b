"""usage: interleave.py SOCKETS ROUNDS PORT

Sends from SOCKETS sockets of each family, every second one connected, in turn, and
reads the answers when all have sent. Each must be the sender's own, from where it
was sent to.
"""

import os
import socket
import sys

sockets, rounds, port = map(int, sys.argv[1:])
servers = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
opened = []
for i in range(sockets):
    for family, host in servers:
        s = socket.socket(family, socket.SOCK_DGRAM)
        s.settimeout(10)
        if i % 2:
            s.connect((host, port))
        opened.append((s, host))
print("ready", flush=True)
answers = 0
for turn in range(rounds):
    for i, (s, host) in enumerate(opened):
        data = b"%d %d %d" % (os.getpid(), i, turn)
        if i // len(servers) % 2:
            s.send(data)
        else:
            s.sendto(data, (host, port))
    for i, (s, host) in enumerate(opened):
        data, sender = s.recvfrom(99)
        want = b"%s %d %d %d" % (host.encode(), os.getpid(), i, turn)
        assert data == want and sender[:2] == (host, port), (data, want, sender)
        answers += 1
print(answers, "answers", flush=True)
