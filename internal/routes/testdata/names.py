# Prints by which address a program knows itself, for each way to a destination.
import ctypes, errno, socket, sys


def family(host):
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def connected(kind, host, prepare=lambda s: None):
    s = socket.socket(family(host), kind)
    s.setblocking(False)  # of TCP only the name matters
    prepare(s)
    try:
        s.connect((host, 53))
    except BlockingIOError:
        pass
    return s


def udp(host):
    return connected(socket.SOCK_DGRAM, host)


def tcp(host):
    return connected(socket.SOCK_STREAM, host)


def port(host):
    """The program chooses the port, and leaves the address to the kernel."""
    return connected(socket.SOCK_DGRAM, host, lambda s: s.bind(("", 5353)))


def bound(host):
    """It chooses both."""
    return connected(socket.SOCK_DGRAM, host, lambda s: s.bind(("2001:db8::2" if ":" in host else "192.0.2.2", 0)))


def marked(host):
    """It has a mark, by which rules can choose."""
    return connected(socket.SOCK_DGRAM, host, lambda s: s.setsockopt(socket.SOL_SOCKET, 36, 1))


def on_device(host):
    return connected(socket.SOCK_DGRAM, host, lambda s: s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo"))


def again(host):
    """It has asked about loopback before, as getaddrinfo() does: with one socket."""
    s = disconnected("::1" if ":" in host else "127.0.0.1")
    s.connect((host, 53))
    return s


def disconnected(host):
    s = udp(host)
    assert not ctypes.CDLL(None).connect(s.fileno(), bytes(16), 16)
    return s


def name(how, host):
    try:
        return globals()[how](host).getsockname()
    except OSError as e:
        return (errno.errorcode[e.errno], 0)


for line in sys.argv[1:]:
    how, host = line.split()
    address, number, *scope = name(how, host)
    print(line, address, number if how == "port" else "", *scope[1:], flush=True)
