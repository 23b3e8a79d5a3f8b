"""usage: namespaces.py SCENARIO APP_CGROUP PROVIDER_CGROUP [BLOB]

What a user without privileges can do with namespaces, and with cgroups that
were delegated to him. Runs in a cgroup below the app's. Prints a line of JSON.
"""

import ctypes
import fcntl
import json
import os
import socket
import struct
import sys
import tempfile
import threading

import wb

app, provider = sys.argv[2:4]
ORIGIN = ("192.0.2.1", 8080)
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x02000000, 0x10000000, 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
TCP_REPAIR = 19


def unshare(flags):
    if wb.libc.unshare(flags):
        raise OSError(ctypes.get_errno(), "unshare")


def raise_loopback():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = bytearray(struct.pack("16sH22x", b"lo", 0))
        fcntl.ioctl(sock, SIOCGIFFLAGS, request)
        flags = struct.unpack_from("=H", request, 16)[0]
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | IFF_UP))


def move_to(cgroup):
    """The name of the error."""
    try:
        with open(os.path.join(cgroup, "cgroup.procs"), "w") as procs:
            procs.write("0")
    except OSError as e:
        return wb.name(e.errno)
    return "ok"


def reach(address):
    with socket.socket() as sock:
        sock.settimeout(10)
        try:
            sock.connect(address)
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            text = b""
            while data := sock.recv(4096):
                text += data
        except OSError as e:
            return {"error": wb.name(e.errno)}
    if not text.startswith(b"{"):
        return {"answer": text.decode()}
    seen = json.loads(text)
    return {"hops": seen["hops"], "cgroup": seen.get("cgroup", 0)}


def user_namespace():
    """Root of a namespace of one's own has all capabilities there, and no right to SET."""
    wb.drop_privileges()
    unshare(CLONE_NEWUSER | CLONE_NEWNET)
    raise_loopback()
    with socket.socket() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)  # it takes CAP_NET_ADMIN, which we have here
        return {"set": wb.name(wb.set_errno(sock, bytes.fromhex(sys.argv[4])))}


def answer(listener):
    conn, _ = listener.accept()
    with conn:
        conn.recv(4096)
        conn.sendall(b"own origin")


def network_namespace():
    """Its loopback is another one: what listens there on the proxy's address is a stranger."""
    wb.drop_privileges()
    unshare(CLONE_NEWUSER | CLONE_NEWNET)
    raise_loopback()
    stranger = socket.create_server(("127.0.0.1", 7001))
    origin = socket.create_server(("127.0.0.1", 8080))
    threading.Thread(target=answer, args=(origin,), daemon=True).start()
    found = reach(("127.0.0.1", 8080))
    stranger.setblocking(False)
    try:
        stranger.accept()
        found["stranger"] = "was called"
    except BlockingIOError:
        pass
    return found


def cgroup_namespace():
    """Another view of the same place: the connection is redirected, and its origin is the same cgroup."""
    own = os.stat(os.path.join(app, "inner")).st_ino
    wb.drop_privileges()
    unshare(CLONE_NEWUSER | CLONE_NEWCGROUP | CLONE_NEWNS)
    with tempfile.TemporaryDirectory() as view:
        mounted = wb.libc.mount(b"none", view.encode(), b"cgroup2", 0, None)
        above = move_to(os.path.join(view, "..", "a")) if not mounted else "not mounted"
        wb.libc.umount2(view.encode(), 2)
    found = reach(ORIGIN)
    return {"hops": found.get("hops"), "same": found.get("cgroup") == own, "moved": move_to(provider), "above": above}


def delegated_cgroup():
    """Whoever owns a cgroup moves as he likes below it, and not out of it."""
    for directory in (app, os.path.join(app, "inner"), os.path.join(app, "sibling")):
        os.makedirs(directory, exist_ok=True)
        os.chown(directory, wb.NOBODY, wb.NOBODY)
        os.chown(os.path.join(directory, "cgroup.procs"), wb.NOBODY, wb.NOBODY)
    wb.drop_privileges()
    inner = reach(ORIGIN)
    moved = move_to(os.path.join(app, "sibling"))
    return {"inner": inner.get("hops", 0), "moved": moved, "sibling": reach(ORIGIN).get("hops", 0),
            "out": move_to(provider), "up": move_to(os.path.join(app, ".."))}


print(json.dumps(globals()[sys.argv[1]]()))
