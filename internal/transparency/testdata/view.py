# Prints what a program sees of its TCP connections, a line for each thing.
import array, errno, fcntl, select, socket, struct, termios, time

FAR = "198.51.100.2"  # another host, which echoes at port 80 and refuses at 81
ABSENT = "198.51.100.3"  # nobody has this address
UNROUTED = "203.0.113.1"
HERE, HERE6 = "192.0.2.1", "::1"  # addresses of this host
LOOPBACK = "127.0.0.1"
SO_PEERNAME = 28
IPPROTO_MPTCP, SOL_MPTCP, MPTCP_INFO = 262, 284, 1
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() resets

probes = []


def probe(name):
    def add(f):
        probes.append((name, f))
        return f

    return add


def family(host):
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def listen(host=LOOPBACK, backlog=16):
    l = socket.socket(family(host))
    l.bind((host, 0))
    l.listen(backlog)
    l.settimeout(5)
    return l


def new(host=LOOPBACK):
    c = socket.socket(family(host))
    c.settimeout(5)
    return c


def pair(host=LOOPBACK, prepare=lambda c: None):
    """Returns both ends of a connection and the address that it went to."""
    l, c = listen(host), new(host)
    prepare(c)
    c.connect(l.getsockname())
    s, peer = l.accept()
    s.settimeout(5)
    s.peer = peer
    # What follows concerns a connection that is there from end to end.
    c.sendall(b"?")
    assert s.recv(1) == b"?"
    return c, s, l.getsockname()


class Accepted(socket.socket):
    """A socket that remembers what accept() said."""

    __slots__ = ["peer"]


def accept(self):
    fd, peer = self._accept()
    return Accepted(self.family, self.type, self.proto, fileno=fd), peer


socket.socket.accept = accept


def outcome(f):
    """Returns what f does, or the name of its error."""
    try:
        return f()
    except TimeoutError as e:
        return errno.errorcode.get(e.errno, "nothing for 5 s")
    except OSError as e:
        return errno.errorcode[e.errno]


def attempt(address):
    """Connects, and then waits for the other side."""
    c = new(address[0])
    first = outcome(lambda: c.connect(address))
    if first not in (None, "ECONNRESET"):
        return first
    # A reset that comes at once is still connect()'s.
    got = first or outcome(lambda: c.recv(1))
    return f"{got} from connect() or later"


def same(a, b):
    return "the same" if a == b else "another"


for host, name in ((LOOPBACK, "127.0.0.1"), (HERE6, "::1"), (HERE, "an address of this host")):

    @probe(f"getpeername() of a connection to {name}")
    def _(host=host):
        c, s, dst = pair(host)
        return "where it went" if c.getpeername() == dst else "another address"

    @probe(f"getsockname() of a connection to {name}")
    def _(host=host):
        c, s, dst = pair(host)
        return c.getsockname()[0]

    @probe(f"address from which the server sees a client of {name}")
    def _(host=host):
        c, s, dst = pair(host)
        return s.peer[0]

    @probe(f"port from which the server sees a client of {name}")
    def _(host=host):
        c, s, dst = pair(host)
        return same(s.peer[1], c.getsockname()[1])

    @probe(f"getsockname() of the server's end at {name}")
    def _(host=host):
        c, s, dst = pair(host)
        return "where the client went" if s.getsockname() == dst else "another address"


@probe("getsockname() of a connection to another host")
def _():
    c = new()
    c.connect((FAR, 80))
    return c.getsockname()[0]


@probe("segment size (TCP_MAXSEG) of a connection to another host")
def _():
    c = new()
    c.connect((FAR, 80))
    c.sendall(b"echo")
    c.recv(4)
    return "of the network" if c.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) < 1500 else "of loopback"


@probe("SO_PEERNAME")
def _():
    c, s, dst = pair()
    port, addr = struct.unpack_from("!2xH4s", c.getsockopt(socket.SOL_SOCKET, SO_PEERNAME, 16))
    return "where it went" if (socket.inet_ntoa(addr), port) == dst else "another address"


@probe("remote address in /proc/net/tcp")
def _():
    c, s, dst = pair()
    local = "%08X:%04X" % (struct.unpack("=I", socket.inet_aton(LOOPBACK))[0], c.getsockname()[1])
    remote = "%08X:%04X" % (struct.unpack("=I", socket.inet_aton(LOOPBACK))[0], dst[1])
    for line in open("/proc/net/tcp"):
        fields = line.split()
        if fields[1] == local and fields[3] == "01":
            return "where it went" if fields[2] == remote else "the proxy's"
    return "none"


@probe("source address, if the client has bound 127.0.0.2")
def _():
    c, s, dst = pair(prepare=lambda c: c.bind(("127.0.0.2", 0)))
    return f"{c.getsockname()[0]}, the server sees {s.peer[0]}"


@probe("one local port, two destinations")
def _():
    def connect():
        a, b = listen(), listen()
        kept, port = [], 0
        for l in (a, b):
            c = new()
            c.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            c.bind((LOOPBACK, port))
            c.connect(l.getsockname())
            port = c.getsockname()[1]
            kept.append(c)
        return "both"

    return outcome(connect)


@probe("destination on this host where nothing listens")
def _():
    l = listen()
    address = l.getsockname()
    l.close()
    return attempt(address)


@probe("the same at an address that is not loopback")
def _():
    l = listen(HERE)
    address = l.getsockname()
    l.close()
    return attempt(address)


@probe("the same, not blocking, SO_ERROR")
def _():
    l, c = listen(), new()
    address = l.getsockname()
    l.close()
    c.setblocking(False)
    first = errno.errorcode[c.connect_ex(address)]
    select.select([], [c], [], 5)
    if first == "EINPROGRESS":
        first = errno.errorcode.get(c.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "0")
    return first if first == "ECONNREFUSED" else "0 or ECONNRESET"


@probe("destination on another host that refuses")
def _():
    return attempt((FAR, 81))


@probe("destination without a route")
def _():
    return attempt((UNROUTED, 80))


@probe("destination that is not there")
def _():
    return attempt((ABSENT, 80))


@probe("destination that is a broadcast address")
def _():
    return attempt(("127.255.255.255", 80))


@probe("destination with port 0")
def _():
    return attempt((LOOPBACK, 0))


@probe("connect() to 0.0.0.0")
def _():
    l, c = listen(), new()
    c.connect(("0.0.0.0", l.getsockname()[1]))
    return c.getpeername()[0]


@probe("listener whose backlog is full")
def _():
    l, kept = listen(backlog=0), []
    for _ in range(4):
        c = new()
        c.settimeout(1)
        kept.append(c)
        if outcome(lambda: c.connect(l.getsockname())) is not None:
            return "connect() waits"
    return "connect() succeeds"


@probe("connection to itself, bound to the port that it connects to")
def _():
    def talk():
        c = new()
        c.bind((LOOPBACK, 0))
        c.connect(c.getsockname())
        c.sendall(b"echo")
        return f"hears itself: {c.recv(4)}"

    return outcome(talk)


@probe("second connect() on a connected socket")
def _():
    c, s, dst = pair()
    c.setblocking(True)
    c.connect(dst)  # the end of the first one, which did not block
    return outcome(lambda: c.connect(dst))


@probe("half-close by the client")
def _():
    c, s, dst = pair()
    c.shutdown(socket.SHUT_WR)
    end = s.recv(1)
    s.sendall(b"late")
    return f"{end} and then {c.recv(4)}"


@probe("half-close by the server")
def _():
    c, s, dst = pair()
    s.shutdown(socket.SHUT_WR)
    end = c.recv(1)
    c.sendall(b"late")
    return f"{end} and then {s.recv(4)}"


@probe("the server resets")
def _():
    c, s, dst = pair()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    s.close()
    return outcome(lambda: c.recv(1))


@probe("the client resets")
def _():
    c, s, dst = pair()
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    c.close()
    return outcome(lambda: s.recv(1))


@probe("the server closes without having read all")
def _():
    c, s, dst = pair()
    c.sendall(b"x" * 100)
    select.select([s], [], [], 5)
    s.close()
    return outcome(lambda: c.recv(1))


@probe("the client writes to a server that has closed")
def _():
    c, s, dst = pair()
    s.close()
    c.recv(1)

    def write():
        for _ in range(50):
            c.sendall(b"x")
            time.sleep(0.02)

    return outcome(write)


@probe("urgent data (MSG_OOB)")
def _():
    c, s, dst = pair()
    c.send(b"!", socket.MSG_OOB)
    s.setblocking(True)  # or Python waits for what is not urgent
    if select.select([], [], [s], 0.5)[2]:
        return f"arrives: {s.recv(1, socket.MSG_OOB)}"
    c.send(b"next")
    if select.select([s], [], [], 0.5)[0]:
        return f"lost; what follows arrives: {s.recv(4)}"
    return "the connection stalls"


@probe("bytes not acknowledged (SIOCOUTQ), if the server does not read")
def _():
    c, s, dst = pair()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    c.send(b"x" * 1_000_000)
    time.sleep(0.3)
    queued = array.array("i", [0])
    fcntl.ioctl(c, termios.TIOCOUTQ, queued)
    return "some" if queued[0] else "none: the proxy has them"


@probe("TCP Fast Open (MSG_FASTOPEN)")
def _():
    l, c = listen(), new()
    c.setblocking(True)
    n = c.sendto(b"fast", socket.MSG_FASTOPEN, l.getsockname())
    s, _ = l.accept()
    s.settimeout(5)
    return f"{n} bytes, the server reads {s.recv(4)}"


@probe("SO_BINDTODEVICE lo")
def _():
    c, s, dst = pair(prepare=lambda c: c.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo"))
    return "connected"


@probe("MPTCP on both sides")
def _():
    l = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
    c = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
    l.bind((LOOPBACK, 0))
    l.listen()
    c.connect(l.getsockname())
    try:
        c.getsockopt(SOL_MPTCP, MPTCP_INFO, 256)
    except OSError as e:
        return f"falls back to TCP: {errno.errorcode[e.errno]}"
    return "in use"


@probe("a connected UDP socket")
def _():
    l, c = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
    l.bind((LOOPBACK, 0))
    c.connect(l.getsockname())
    c.send(b"x")
    return "peers see each other" if l.recvfrom(1)[1] == c.getsockname() else "peers do not see each other"


for name, f in probes:
    print(name, outcome(f), sep="\t", flush=True)
