"""usage: errors.py APP_CGROUP FOREIGN_BLOB

Every row of the table of errors in docs/sockopt.md, provoked by plain system
calls. Runs as provider a; prints a line of JSON for each row.
"""

import ctypes
import os
import socket
import sys

import wb
from wb import CONTEXT, ORIGIN, ORIGINAL_DST, RECORDS, RECORDS_MAX, SOL_WAYBILL, STATE

app, foreign = sys.argv[1], bytes.fromhex(sys.argv[2])
ORIGIN_ADDRESS, UNWANTED_ADDRESS = ("127.0.0.1", 8080), ("127.0.0.1", 8081)
CLONE_NEWUSER = 0x10000000
HOP = 40  # bytes of a blob for each hop


def row(what, want, got):
    wb.report(row=what, want=want, got=wb.name(got) if isinstance(got, int) else got)


def tcp(family=socket.AF_INET):
    return socket.socket(family, socket.SOCK_STREAM)


def asker(prepare):
    """A child in the app's cgroup that SETs the blob it is sent; returns a function that asks it."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def serve():
        here.close()
        prepare()
        while blob := there.recv(2 * RECORDS_MAX):
            with tcp() as sock:
                there.send(bytes([wb.set_errno(sock, blob)]))

    wb.fork_into(app, serve)
    there.close()

    def ask(blob):
        here.send(blob)
        return here.recv(1)[0]

    return ask


def become_root_of_own_namespace():
    wb.drop_privileges()
    if wb.libc.unshare(CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), "unshare")


def sizes(conn):
    """The size protocol, for every option that has an answer here."""
    for what, option, size, least in (("records", RECORDS, len(blob), len(blob)), ("context", CONTEXT, 5, 5),
                                      ("original dst", ORIGINAL_DST, 16, 16), ("origin", ORIGIN, 80, 64),
                                      ("state", STATE, 8, 8)):
        err, asked = wb.getsockopt(conn.fileno(), SOL_WAYBILL, option, None, 0)
        row(f"size of {what} with a NULL buffer", f"ok {size}", f"{wb.name(err)} {asked}")
        row(f"get {what} into the exact size", "ok", wb.query_errno(conn, option, size))
        row(f"get {what} into the least size", "ok", wb.query_errno(conn, option, least))
        row(f"get {what} into one byte less", "ERANGE", wb.query_errno(conn, option, least - 1))
        row(f"get {what} into one byte", "ERANGE", wb.query_errno(conn, option, 1))
        row(f"get {what} into length 0 with a buffer", "EFAULT", wb.query_errno(conn, option, 0))
        row(f"get {what} into a bad pointer", "EFAULT",
            wb.getsockopt(conn.fileno(), SOL_WAYBILL, option, ctypes.c_void_p(1), RECORDS_MAX)[0])
        row(f"get {what} into the maximum", "ok", wb.query_errno(conn, option, RECORDS_MAX))
    row("get records into 64 KiB", "ok", wb.query_errno(conn, RECORDS, 65536))


def records_are_stable(conn):
    again = wb.query(conn, RECORDS)
    row("reading does not consume", "same", "same" if again == blob else "differs")


def bad_blobs():
    with tcp() as sock:
        row("set a valid blob", "ok", wb.set_errno(sock, blob))
        row("set it again in its place", "ok", wb.set_errno(sock, blob))
        row("set from a bad pointer", "EFAULT",
            wb.setsockopt(sock.fileno(), SOL_WAYBILL, RECORDS, ctypes.c_void_p(1), len(blob)))
        row("set nothing", "EINVAL", wb.set_errno(sock, b""))
        row("set one byte", "EINVAL", wb.set_errno(sock, b"x"))
        row("set a blob cut by a byte", "EINVAL", wb.set_errno(sock, blob[:-1]))
        row("set a blob cut by a hop", "EINVAL", wb.set_errno(sock, blob[:-HOP]))
        row("set a blob and a byte", "EINVAL", wb.set_errno(sock, blob + b"\0"))
        row("set a blob and a hop", "EINVAL", wb.set_errno(sock, blob + blob[-HOP:]))
        row("set the longest blob of zeros", "EINVAL", wb.set_errno(sock, bytes(RECORDS_MAX)))
        row("set more than a page", "EINVAL", wb.set_errno(sock, bytes(10000)))
        row("set a blob of another waybill", "EINVAL", wb.set_errno(sock, foreign))
        for size in range(len(blob)):
            if wb.set_errno(sock, blob[:size]) == 0:
                row(f"set a blob cut to {size} bytes", "EINVAL", 0)
        for byte in range(len(blob)):
            for bit in range(8):
                altered = bytearray(blob)
                altered[byte] ^= 1 << bit
                if wb.set_errno(sock, bytes(altered)) == 0:
                    row(f"set a blob with bit {bit} of byte {byte} altered", "EINVAL", 0)
        row("set a valid blob after all that", "ok", wb.set_errno(sock, blob))
    with tcp() as sock:
        wb.fill_option_memory(sock)
        row("set on a socket without option memory", "ENOMEM", wb.set_errno(sock, blob))


def wrong_moment(conn):
    row("set on an accepted socket", "EINVAL", wb.set_errno(conn, blob))
    with tcp() as sock:
        sock.connect(UNWANTED_ADDRESS)
        row("set after connect", "EINVAL", wb.set_errno(sock, blob))
    with wb.stuck_listener(("127.0.0.1", 8082)), tcp() as sock:
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", 8082))
        row("set while connecting", "EINVAL", wb.set_errno(sock, blob))
    with tcp() as sock:
        sock.bind(("127.0.0.1", 0))
        row("set after bind", "ok", wb.set_errno(sock, blob))
        sock.listen()
        row("set on a listening socket", "EINVAL", wb.set_errno(sock, blob))
        row("get from a listening socket", "ENOTCONN", wb.query_errno(sock, RECORDS))
    with tcp() as sock:
        for what, option in (("records", RECORDS), ("context", CONTEXT), ("original dst", ORIGINAL_DST),
                             ("origin", ORIGIN), ("state", STATE)):
            row(f"get {what} before connect", "ENOTCONN", wb.query_errno(sock, option))


def wrong_socket():
    for what, kind in (("stream", socket.SOCK_STREAM), ("datagram", socket.SOCK_DGRAM)):
        with socket.socket(socket.AF_UNIX, kind) as sock:
            row(f"set on a unix {what} socket", "EINVAL", wb.set_errno(sock, blob))
            row(f"get from a unix {what} socket", "EINVAL", wb.query_errno(sock, RECORDS))
    read, write = os.pipe()
    row("get from a pipe", "ENOTSOCK",
        wb.getsockopt(read, SOL_WAYBILL, RECORDS, ctypes.create_string_buffer(RECORDS_MAX), RECORDS_MAX)[0])
    row("set on a pipe", "ENOTSOCK", wb.setsockopt(write, SOL_WAYBILL, RECORDS, blob, len(blob)))
    row("get from a closed descriptor", "EBADF",
        wb.getsockopt(9999, SOL_WAYBILL, RECORDS, ctypes.create_string_buffer(RECORDS_MAX), RECORDS_MAX)[0])


def udp():
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            row("get from an unconnected UDP socket", "ENOTCONN", wb.query_errno(sock, RECORDS))
            row("set on an unconnected UDP socket", "ok", wb.set_errno(sock, blob))
            row("set a malformed blob on a UDP socket", "EINVAL", wb.set_errno(sock, b"x"))
            sock.connect((host, 9))
            row("get from a connected UDP socket", "ok", wb.query_errno(sock, RECORDS))
            row("set on a connected UDP socket", "EINVAL", wb.set_errno(sock, blob))
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((host, 9))
            row("get from a UDP connection that was not redirected", "ENODATA", wb.query_errno(sock, RECORDS))


def no_records():
    with tcp() as sock:
        sock.connect(UNWANTED_ADDRESS)
        for what, option in (("records", RECORDS), ("context", CONTEXT), ("original dst", ORIGINAL_DST), ("origin", ORIGIN)):
            row(f"get {what} from a connection that was not redirected", "ENODATA", wb.query_errno(sock, option))
        row("state of a connection that was not redirected", "0 0", "%d %d" % wb.state(sock))


def unknown_options(conn):
    for option in (0, 6, -1, 80):
        row(f"get option {option}", kernel_answer["get"], wb.query_errno(conn, option))
        with tcp() as sock:
            row(f"set option {option}", "ENOPROTOOPT",
                wb.setsockopt(sock.fileno(), SOL_WAYBILL, option, blob, len(blob)))
    for option in (CONTEXT, ORIGINAL_DST, ORIGIN, STATE):
        with tcp() as sock:
            row(f"set option {option}, which can only be read", "ENOPROTOOPT",
                wb.setsockopt(sock.fileno(), SOL_WAYBILL, option, blob, len(blob)))


def original_dst_of_netfilter(conn):
    for size in (16, 28, 128, 4096, 65536):
        err, length = wb.getsockopt(conn.fileno(), socket.SOL_IP, wb.SO_ORIGINAL_DST, ctypes.create_string_buffer(size), size)
        row(f"SO_ORIGINAL_DST into {size} bytes", "ok 16", f"{wb.name(err)} {length}")
    row("SO_ORIGINAL_DST", "127.0.0.1 8080", wb.sockaddr(conn.getsockopt(socket.SOL_IP, wb.SO_ORIGINAL_DST, 16)))
    row("SO_ORIGINAL_DST into 15 bytes", "EINVAL", wb.query_errno(conn, wb.SO_ORIGINAL_DST, 15, socket.SOL_IP))
    # Another level's option 80 is none of ours: every answer must be the kernel's own.
    for what, level in (("SOL_SOCKET", socket.SOL_SOCKET), ("SOL_TCP", socket.SOL_TCP)):
        ours = wb.query_errno(conn, 80, 4, level)
        row(f"option 80 of {what}", kernel_answer[level], ours)


def other_options(conn):
    row("TCP_INFO comes through", "ok", wb.query_errno(conn, socket.TCP_INFO, 256, socket.SOL_TCP))
    row("SO_ERROR into 8 KiB comes through", "ok", wb.query_errno(conn, socket.SO_ERROR, 8192, socket.SOL_SOCKET))
    row("a level that nobody knows", kernel_answer["level"],
        wb.query_errno(conn, 1, 4, 0x5743))
    big = (1).to_bytes(4, "little") + bytes(8188)
    row("SO_KEEPALIVE from 8 KiB comes through", "ok",
        wb.setsockopt(conn.fileno(), socket.SOL_SOCKET, socket.SO_KEEPALIVE, big, len(big)))


def outside_answers():
    """What the kernel says where waybill does not cover the socket: to a process in the root cgroup."""
    here, there = socket.socketpair()

    def ask():
        with tcp() as sock:
            sock.connect(UNWANTED_ADDRESS)
            for what, got in (("get", wb.query_errno(sock, RECORDS)),
                              ("set", wb.set_errno(sock, b"x" * 128)),
                              (socket.SOL_SOCKET, wb.query_errno(sock, 80, 4, socket.SOL_SOCKET)),
                              (socket.SOL_TCP, wb.query_errno(sock, 80, 4, socket.SOL_TCP)),
                              ("level", wb.query_errno(sock, 1, 4, 0x5743))):
                there.send(f"{what}={wb.name(got)}\n".encode())
            there.shutdown(socket.SHUT_WR)

    os.waitpid(wb.fork_into(os.path.join(app, "..", ".."), ask), 0)
    there.close()
    answers = {}
    for line in here.makefile():
        what, got = line.strip().rsplit("=", 1)
        answers[int(what) if what.isdigit() else what] = got
    return answers


unwanted = socket.create_server(UNWANTED_ADDRESS)
kernel_answer = outside_answers()
for call in ("get", "set"):  # the kernel has both names for it, by call and version
    answer = kernel_answer[call]
    row(f"{call} outside the scope", "ENOPROTOOPT", "ENOPROTOOPT" if answer == "EOPNOTSUPP" else answer)

as_nobody, as_fake_root, as_root = asker(wb.drop_privileges), asker(become_root_of_own_namespace), asker(lambda: None)
with socket.create_server(("127.0.0.1", 7001)) as listener:
    wb.hold_connection(app, ORIGIN_ADDRESS)
    wb.drop_privileges()
    conn, _ = listener.accept()
    blob = wb.query(conn, RECORDS)

    row("set by a process in the provider's cgroup, without privilege", "ok", wb.set_errno(tcp(), blob))
    row("set by a process outside, without privilege", "EACCES", as_nobody(blob))
    row("set by root of a user namespace of its own", "EACCES", as_fake_root(blob))
    row("set by a process outside, with CAP_NET_ADMIN", "ok", as_root(blob))
    row("a malformed blob, without privilege", "EACCES", as_nobody(b"x"))
    sizes(conn)
    records_are_stable(conn)
    bad_blobs()
    wrong_moment(conn)
    wrong_socket()
    udp()
    no_records()
    unknown_options(conn)
    original_dst_of_netfilter(conn)
    other_options(conn)
    conn.close()
