"""The numbers of include/waybill.h, and raw system calls: what a program that uses no library has."""

import ctypes
import errno
import json
import os
import socket
import struct
import subprocess

SOL_WAYBILL = 0x5742
RECORDS, CONTEXT, ORIGINAL_DST, ORIGIN, STATE = 1, 2, 3, 4, 5
RECORDS_MAX = 1024
SO_ORIGINAL_DST = 80
TCP_MD5SIG = 14
NOBODY = 65534

libc = ctypes.CDLL(None, use_errno=True)


def getsockopt(fd, level, option, buffer, length):
    """Raw getsockopt with any pointer; returns (errno, length)."""
    size = ctypes.c_uint32(length)
    if libc.getsockopt(fd, level, option, buffer, ctypes.byref(size)) == 0:
        return 0, size.value
    return ctypes.get_errno(), size.value


def setsockopt(fd, level, option, buffer, length):
    """Raw setsockopt with any pointer; returns errno."""
    if libc.setsockopt(fd, level, option, buffer, ctypes.c_uint32(length)) == 0:
        return 0
    return ctypes.get_errno()


def query(sock, option, size=RECORDS_MAX, level=SOL_WAYBILL):
    """The bytes of an option; raises OSError."""
    return sock.getsockopt(level, option, size)


def query_errno(sock, option, size=RECORDS_MAX, level=SOL_WAYBILL):
    """The errno of reading an option; 0 if it succeeds."""
    return getsockopt(sock.fileno(), level, option, ctypes.create_string_buffer(max(size, 1)), size)[0]


def set_errno(sock, blob):
    """The errno of setting records; 0 if it succeeds."""
    return setsockopt(sock.fileno(), SOL_WAYBILL, RECORDS, blob, len(blob))


def sockaddr(raw):
    """Decode a struct sockaddr_in or sockaddr_in6 as "address port"."""
    family = struct.unpack_from("=H", raw)[0]
    port = struct.unpack_from("!H", raw, 2)[0]
    ip = raw[4:8] if family == socket.AF_INET else raw[8:24]
    return f"{socket.inet_ntop(family, ip)} {port}"


def state(sock):
    """(state, hops) of a connection for the calling process's provider."""
    return struct.unpack("=II", query(sock, STATE, 8))


def origin(sock):
    """Decode a struct waybill_origin."""
    names = ("pid", "tgid", "uid", "gid", "cgroup", "netns", "start", "flow", "comm")
    values = struct.unpack("=IIIIQQQQ16s", query(sock, ORIGIN, 64))
    record = dict(zip(names, values))
    record["comm"] = record["comm"].split(b"\0")[0].decode()
    return record


def name(number):
    """EINVAL for 22, ok for 0."""
    if number == errno.EOPNOTSUPP:  # Python prefers ENOTSUP, the same number
        return "EOPNOTSUPP"
    return errno.errorcode.get(number, str(number)) if number else "ok"


def report(**fields):
    """One line of JSON for the test that started this program."""
    print(json.dumps(fields), flush=True)


def drop_privileges():
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def fork_into(cgroup, function):
    """Run function in a child process in another cgroup; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        with open(os.path.join(cgroup, "cgroup.procs"), "w") as procs:
            procs.write("0")
        function()
        os._exit(0)
    except ConnectionResetError:
        os._exit(0)  # the test is over
    except BaseException as e:  # the child must not go on as a second parent
        os.write(2, f"{type(e).__name__}: {e}\n".encode())
        os._exit(1)


def hold_connection(cgroup, address, family=socket.AF_INET):
    """A child in cgroup that connects to address, says hello, and waits for the end."""

    def hold():
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.connect(address)
            sock.sendall(b"hello")
            sock.recv(1)

    return fork_into(cgroup, hold)


def drop_packets_to(port):
    """What comes to a TCP port of this network namespace is dropped, silently."""
    rules = f"add table ip drops\nadd chain ip drops in {{ type filter hook input priority 0; }}\n"
    subprocess.run(["nft", "-f", "-"], input=rules + f"add rule ip drops in tcp dport {port} drop\n", text=True, check=True)


def drop_no_packets():
    subprocess.run(["nft", "delete", "table", "ip", "drops"], check=True)


def stuck_listener(address):
    """A listener whose backlog is full: further SYNs to it are not answered."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(0)
    fill_backlog(address)
    return listener


def fill_backlog(address):
    """Leave a connection in the only place of a backlog of 0. It stays there after the close."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(5)
        sock.connect(address)


def wait_for(pid):
    """Until a child of fork_into has ended, as it should."""
    assert os.waitpid(pid, 0)[1] == 0


def sign(sock, peer):
    """Sign what goes to a peer, and drop what comes from it unsigned: TCP-MD5."""
    address = struct.pack("=HH4s120x", socket.AF_INET, 0, peer)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, address + struct.pack("=BBHI80s", 0, 0, 1, 0, b"k"))


def fill_option_memory(sock):
    """Use up what the kernel lets the options of one socket take: with keys for peers that do not exist."""
    for i in range(100000):
        try:
            sign(sock, struct.pack("!I", 0x0A000000 + i))
        except OSError as e:
            return e.errno
    return 0
