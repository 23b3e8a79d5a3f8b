"""usage: handed.py SCENARIO APP_CGROUP OTHER_CGROUP [OUTSIDE_CGROUP]

Sockets that change hands, and processes that change their cgroup. Starts as a
process of provider a, whose address nobody listens on yet. Prints a line of
JSON with what was seen.
"""

import array
import json
import os
import socket
import sys

import wb

app, other = sys.argv[2:4]
OWN = os.path.join(app, "..", "a")
ORIGIN = ("192.0.2.1", 8080)
PROXY = ("127.0.0.1", 7001)


def move_to(cgroup):
    with open(os.path.join(cgroup, "cgroup.procs"), "w") as procs:
        procs.write("0")


def run_in(cgroup, function):
    """The result of function in a child process that was moved to a cgroup."""
    read, write = os.pipe()
    os.waitpid(wb.fork_into(cgroup, lambda: os.write(write, json.dumps(function()).encode())), 0)
    os.close(write)
    with os.fdopen(read) as result:
        return json.loads(result.read())


def hand_over(sock, cgroup, function):
    """The result of function, given the socket, in a process elsewhere that gets it by SCM_RIGHTS and never inherits it."""
    here, there = socket.socketpair()

    def take():
        _, control, _, _ = there.recvmsg(1, socket.CMSG_SPACE(4))
        return function(socket.socket(fileno=array.array("i", control[0][2])[0]))

    read, write = os.pipe()
    pid = wb.fork_into(cgroup, lambda: os.write(write, json.dumps(take()).encode()))
    with sock:
        here.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()]))])
    os.waitpid(pid, 0)
    os.close(write)
    with os.fdopen(read) as result:
        return json.loads(result.read())


def reach(sock):
    """What is at the other end of the connection to the origin: a proxy's report, or the origin's answer."""
    with sock:
        sock.settimeout(10)
        sock.connect(ORIGIN)
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        text = b""
        while data := sock.recv(4096):
            text += data
    if not text.startswith(b"{"):
        return {"answer": text.decode()}
    seen = json.loads(text)
    return {"state": seen["state"], "hops": seen["hops"], "own": seen["pid"] == os.getpid()}


def socket_in(cgroup):
    """A socket that a process of another cgroup created."""
    here, there = socket.socketpair()

    def give():
        sock = socket.socket()
        there.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()]))])

    os.waitpid(wb.fork_into(cgroup, give), 0)
    _, control, _, _ = here.recvmsg(1, socket.CMSG_SPACE(4))
    return socket.socket(fileno=array.array("i", control[0][2])[0])


def records():
    with socket.create_server(PROXY) as listener:
        wb.hold_connection(app, ORIGIN)
        conn, _ = listener.accept()
        return conn, wb.query(conn, wb.RECORDS)


def app_gives_socket_to_proxy():
    return reach(socket_in(app))


def proxy_gives_socket_to_app():
    return hand_over(socket.socket(), app, reach)


def app_inherits_socket_of_proxy():
    sock = socket.socket()
    return run_in(app, lambda: reach(sock))


def proxy_gives_socket_with_records_to_app():
    _, blob = records()
    sock = socket.socket()
    assert wb.set_errno(sock, blob) == 0
    return hand_over(sock, app, reach)


def proxy_gives_accepted_socket_to_app():
    """The app, without privileges, reads the records and can not set them."""
    conn, _ = records()

    def use(sock):
        wb.drop_privileges()
        blob = wb.query(sock, wb.RECORDS)
        return {"query": "ok", "set": wb.name(wb.set_errno(socket.socket(), blob)),
                "context": wb.name(wb.query_errno(sock, wb.CONTEXT))}

    return hand_over(conn, app, use)


def proxy_gives_listener_to_stranger():
    listener = socket.create_server(PROXY)

    def accept(sock):
        wb.hold_connection(app, ORIGIN)
        conn, _ = sock.accept()
        state, hops = wb.state(conn)
        return {"state": state, "hops": hops}

    return hand_over(listener, other, accept)


def stranger_listens_then_moves_to_proxy():
    """Its socket stays a stranger's."""
    move_to(other)
    with socket.create_server(PROXY):
        move_to(OWN)
        return run_in(app, lambda: reach(socket.socket()))


def proxy_listens_then_moves_away():
    """Its socket stays the proxy's, and it is sent connections."""
    with socket.create_server(PROXY) as listener:
        move_to(other)
        wb.hold_connection(app, ORIGIN)
        conn, _ = listener.accept()
        state, hops = wb.state(conn)
        return {"state": state, "hops": hops}


def app_moves_to_proxy_before_socket():
    move_to(app)
    move_to(OWN)
    return reach(socket.socket())


def app_moves_to_proxy_after_socket():
    move_to(app)
    sock = socket.socket()
    move_to(OWN)
    return reach(sock)


def proxy_moves_to_app_after_socket():
    sock = socket.socket()
    move_to(app)
    return reach(sock)


def app_moves_outside_after_socket():
    """The hooks that run are those of the cgroup that created the socket."""
    move_to(app)
    sock = socket.socket()
    move_to(sys.argv[4])
    return reach(sock)


def outsider_moves_in_after_socket():
    move_to(sys.argv[4])
    sock = socket.socket()
    move_to(app)
    return reach(sock)


def app_is_given_socket_from_outside():
    sock = socket_in(sys.argv[4])
    move_to(app)
    return reach(sock)


print(json.dumps(globals()[sys.argv[1]]()))
