"""usage: datagrams.py aware|unaware PORT

A proxy of UDP, for both families. An aware one connects a socket to each new peer
and reads from it whose flow it is and where it goes. One that knows nothing of waybill
forwards everything to the origin, as it was told to, from one socket per peer.
"""

import os
import select
import socket
import struct
import sys

import wb

ORIGIN_PORT = int(os.environ.get("ORIGIN_PORT", "8080"))
aware, port = sys.argv[1] == "aware", int(sys.argv[2])
flows = {}  # by peer: the upstream socket


def inquire(family, peer):
    """The records and the original destination of a peer's flow."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect(peer)
        dst = wb.query(sock, wb.ORIGINAL_DST, 28)
        wb.report(peer=peer[0], dst=wb.sockaddr(dst), hops=wb.state(sock)[1], **wb.origin(sock))
        return wb.query(sock, wb.RECORDS), dst


def connect_raw(sock, sockaddr):
    if wb.libc.connect(sock.fileno(), sockaddr, len(sockaddr)):
        raise OSError("connect failed")


def open_upstream(listener, peer):
    if not aware:
        origin = os.environ["ORIGIN6" if listener.family == socket.AF_INET6 else "ORIGIN"]
        upstream = socket.socket(listener.family, socket.SOCK_DGRAM)
        wb.report(peer=peer[0])
        return upstream, (origin, ORIGIN_PORT)
    records, dst = inquire(listener.family, peer)
    family = struct.unpack_from("=H", dst)[0]
    upstream = socket.socket(family, socket.SOCK_DGRAM)
    err = wb.set_errno(upstream, records)
    assert not err, err
    connect_raw(upstream, dst)
    return upstream, None


def bound(family, host):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((host, port))
    return sock


listeners = [bound(socket.AF_INET, "127.0.0.1"), bound(socket.AF_INET6, "::1")]
upstreams = {}
poll = select.epoll()
by_fd = {}
for sock in listeners:
    poll.register(sock.fileno(), select.EPOLLIN)
    by_fd[sock.fileno()] = sock
print("ready", flush=True)
while True:
    for fd, _ in poll.poll():
        sock = by_fd[fd]
        if sock in listeners:
            data, peer = sock.recvfrom(65536)
            if peer not in flows:
                flows[peer] = open_upstream(sock, peer)
                upstream = flows[peer][0]
                upstreams[upstream.fileno()] = (sock, peer)
                by_fd[upstream.fileno()] = upstream
                poll.register(upstream.fileno(), select.EPOLLIN)
            upstream, to = flows[peer]
            upstream.sendto(data, to) if to else upstream.send(data)
        else:
            data = sock.recv(65536)
            listener, peer = upstreams[fd]
            listener.sendto(data, peer)
