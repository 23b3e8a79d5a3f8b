//go:build linux

package engine_test

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/testenv"
)

// udpChain is a chain for UDP alone.
func udpChain(env *testenv.Env, names ...string) policy.Policy {
	p := chain(env, names...)
	for i := range p.Providers {
		p.Providers[i].UDP, p.Providers[i].UDP6 = p.Providers[i].Listen, p.Providers[i].Listen6
		p.Providers[i].Listen, p.Providers[i].Listen6 = netip.AddrPort{}, netip.AddrPort{}
		p.Filters[i].Protocols = []policy.Protocol{policy.UDP}
	}
	return p
}

// startDatagramOrigin answers each datagram on all addresses with what it was
// sent, from the address to which it was.
func startDatagramOrigin(t *testing.T, env *testenv.Env) {
	t.Helper()
	for _, host := range []string{"127.0.0.1", "192.0.2.1", "192.0.2.2", "::1", "2001:db8::1", "2001:db8::2"} {
		env.AnswerDatagrams(net.JoinHostPort(host, strconv.Itoa(originPort)))
	}
}

// startUDPChain is an engine with a chain for UDP alone in front of an origin.
func startUDPChain(t *testing.T, names ...string) (*testenv.Env, *engine.Engine) {
	t.Helper()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startDatagramOrigin(t, env)
	apply(t, e, udpChain(env, names...))
	return env, e
}

// startRelay starts a proxy of UDP for provider name.
func startRelay(env *testenv.Env, name string) *testenv.Server {
	return env.Start(name, "python3", "testdata/datagrams.py", "aware", strconv.Itoa(7001+int(name[0]-'a')))
}

// datagramReport is what testdata/datagrams.py prints of a new flow.
type datagramReport struct {
	Peer, Dst, Comm string
	Hops            int
	Flow, TGID      uint64
}

// TestDatagrams sends datagrams of every kind through a chain of two.
func TestDatagrams(t *testing.T) {
	for _, tt := range []struct{ name, script, want string }{
		{"connected", `
s = connected("192.0.2.1"); s.send(b"one"); print(s.recv(99), s.getpeername()[0])`, `b'192.0.2.1 one' 192.0.2.1`},
		{"connected6", `
s = connected("2001:db8::1"); s.send(b"one"); print(s.recv(99), s.getpeername()[0])`, `b'2001:db8::1 one' 2001:db8::1`},
		{"connected, mapped", `
s = unconnected(socket.AF_INET6); s.connect(("::ffff:192.0.2.1", 8080)); s.send(b"one"); print(s.recv(99), s.getpeername()[0])`, `b'192.0.2.1 one' ::ffff:192.0.2.1`},
		{"recvfrom on connected", `
s = connected("192.0.2.1"); s.send(b"one"); print(s.recvfrom(99)[1][0])`, `192.0.2.1`},
		{"sendto on connected", `
s = connected("192.0.2.1"); s.sendto(b"one", ("192.0.2.1", 8080)); print(*s.recvfrom(99))`, `b'192.0.2.1 one' ('192.0.2.1', 8080)`},
		{"sendto elsewhere on connected", `
s = connected("192.0.2.1"); s.send(b"one"); s.recv(99)
s.sendto(b"two", ("192.0.2.2", 8080)) # whose answer the kernel does not let in
s.send(b"three"); print(*s.recvfrom(99), s.getpeername()[0])`, `b'192.0.2.1 three' ('192.0.2.1', 8080) 192.0.2.1`},
		{"unconnected", `
s = unconnected(); s.sendto(b"one", ("192.0.2.1", 8080)); print(*s.recvfrom(99))`, `b'192.0.2.1 one' ('192.0.2.1', 8080)`},
		{"unconnected6", `
s = unconnected(socket.AF_INET6); s.sendto(b"one", ("2001:db8::1", 8080)); print(s.recvfrom(99)[1][:2])`, `('2001:db8::1', 8080)`},
		{"mapped", `
s = unconnected(socket.AF_INET6); s.sendto(b"one", ("::ffff:192.0.2.1", 8080)); print(s.recvfrom(99)[1][:2])`, `('::ffff:192.0.2.1', 8080)`},
		{"two destinations, in turn", `
s = unconnected()
for i in range(3):
    s.sendto(b"a", ("192.0.2.1", 8080)); s.sendto(b"b", ("192.0.2.2", 8080))
print(sorted({s.recvfrom(99) for i in range(6)}))`, `[(b'192.0.2.1 a', ('192.0.2.1', 8080)), (b'192.0.2.2 b', ('192.0.2.2', 8080))]`},
		{"both families on one socket", `
s = unconnected(socket.AF_INET6)
s.sendto(b"a", ("::ffff:192.0.2.1", 8080)); s.sendto(b"b", ("2001:db8::1", 8080))
print(sorted(s.recvfrom(99)[1][0] for i in range(2)))`, `['2001:db8::1', '::ffff:192.0.2.1']`},
		{"bound to an address", `
s = unconnected(); s.bind(("192.0.2.2", 0)); s.sendto(b"one", ("192.0.2.1", 8080)); print(*s.recvfrom(99))`, `b'192.0.2.1 one' ('192.0.2.1', 8080)`},
		{"recv without address", `
s = unconnected(); s.sendto(b"one", ("192.0.2.1", 8080)); print(s.recv(99))`, `b'192.0.2.1 one'`},
		{"another connect", `
s = connected("192.0.2.1"); s.send(b"one"); s.recv(99)
s.connect(("192.0.2.2", 8080)); s.send(b"two"); print(*s.recvfrom(99))`, `b'192.0.2.2 two' ('192.0.2.2', 8080)`},
		{"disconnected, then sendto", `
s = connected("192.0.2.1"); s.send(b"one"); s.recv(99)
disconnect(s); s.sendto(b"two", ("192.0.2.2", 8080)); print(*s.recvfrom(99))`, `b'192.0.2.2 two' ('192.0.2.2', 8080)`},
		{"nothing listens on loopback", `
s = connected("127.0.0.1", 9)
try:
    s.send(b"one"); s.recv(99)
except OSError as e:
    print(type(e).__name__)`, `ConnectionRefusedError`},
		{"empty and long datagrams", `
s = unconnected()
for n in (0, 1, 1400, 9000, 60000):
    s.sendto(bytes(n), ("192.0.2.1", 8080)); print(len(s.recv(65536)) - len("192.0.2.1 "), end=" ")`, `0 1 1400 9000 60000`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			env, e := startUDPChain(t, "a", "b")
			a := startRelay(env, "a")
			b := startRelay(env, "b")
			got := env.Run("app", "python3", "-c", `
import socket, ctypes
def unconnected(family=socket.AF_INET):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(5)
    return s
def connected(host, port=8080):
    s = unconnected(socket.AF_INET6 if ":" in host else socket.AF_INET)
    s.connect((host, port))
    return s
def disconnect(s):
    assert not ctypes.CDLL(None).connect(s.fileno(), bytes(16), 16)
`+tt.script)
			if strings.TrimSpace(got) != tt.want {
				t.Errorf("got %s, want %s; counters %v", got, tt.want, counters(t, e))
			}
			if tt.name == "nothing listens on loopback" {
				return
			}
			var first, second datagramReport
			decode(t, a.Stop(syscall.SIGTERM), &first)
			decode(t, b.Stop(syscall.SIGTERM), &second)
			if first.Hops != 1 || second.Hops != 2 || first.Flow != second.Flow || first.Dst != second.Dst || first.Comm != "python3" || second.Comm != "python3" {
				t.Errorf("proxy a saw %+v, proxy b %+v", first, second)
			}
		})
	}
}

// peers waits until there are so many flows of UDP.
func waitPeers(t *testing.T, e *engine.Engine, want int) {
	t.Helper()
	var flows, destinations, candidates int
	for range 250 { // flows stay for a second after their sockets
		var err error
		if flows, destinations, err = e.Peers(); err != nil {
			t.Fatal(err)
		}
		if candidates, err = e.Candidates(); err != nil {
			t.Fatal(err)
		}
		if flows == want && destinations <= want && candidates <= want {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("%d flows, %d destinations, %d candidates; want %d", flows, destinations, candidates, want)
}

// TestDatagramsEnd: with the sockets of the application go the flows, also if
// it is killed; and while they are open, they are listed.
func TestDatagramsEnd(t *testing.T) {
	t.Parallel()
	env, e := startUDPChain(t, "a")
	startRelay(env, "a")
	app := env.Start("app", "python3", "-c", `
import ctypes, signal, socket
held = []
for i in range(50):
    c = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); c.connect(("192.0.2.1", 8080)); c.send(b"x"); c.recv(99)
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.sendto(b"x", ("192.0.2.1", 8080)); u.recv(99); u.sendto(b"x", ("192.0.2.2", 8080)); u.recv(99)
    c.connect(("192.0.2.2", 8080)); c.send(b"x"); c.recv(99) # in the place of the one before
    held += [c, u]
# Disconnected, a socket gets another port, and its flows of before are over: those to .1 and .2.
libc = ctypes.CDLL(None)
for i in range(50):
    d = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    d.sendto(b"x", ("192.0.2.1", 8080)); d.recv(99)
    d.connect(("192.0.2.2", 8080)); d.send(b"x"); d.recv(99)
    assert not libc.connect(d.fileno(), bytes(16), 16)
    d.sendto(b"x", ("192.0.2.1", 8080)); d.recv(99)
    d.connect(("192.0.2.1", 9)) # nobody wants that
    held.append(d)
probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); probe.connect(("192.0.2.1", 8080))
print("ready", flush=True)
signal.pause()
`)
	waitPeers(t, e, 200)
	env.Inside(func() error {
		flows, err := e.Flows()
		if err != nil {
			return err
		}
		connected := 0
		for _, f := range flows {
			if f.Protocol == "udp" && f.State == "connected" && f.Hops[0].Dst.String() == "192.0.2.2:8080" {
				connected++
			}
		}
		if connected != 50 {
			t.Errorf("%d flows of connected sockets are listed, want 50", connected)
		}
		return nil
	})
	app.Kill()
	waitPeers(t, e, 0)
}

// TestDatagramsOfOneSocket: a proxy that goes on with two flows from one socket
// sets the records of each before its datagrams, and they stay apart.
func TestDatagramsOfOneSocket(t *testing.T) {
	t.Parallel()
	env, e := startUDPChain(t, "a", "b")
	a := env.Start("a", "python3", "-c", `
import os, socket, sys
sys.path.insert(0, "testdata")
import wb
proxy = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
proxy.bind(("127.0.0.1", 7001))
upstream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print("ready", flush=True)
flows = []
for i in range(6):
    data, peer = proxy.recvfrom(99)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(peer)
        records, flow = wb.query(sock, wb.RECORDS), wb.origin(sock)["flow"]
    assert not wb.set_errno(upstream, records)
    upstream.sendto(data, ("192.0.2.1", 8080))
    proxy.sendto(upstream.recvfrom(99)[0], peer)
    flows.append(flow)
print(*flows, flush=True)
`)
	b := env.Start("b", "python3", "-c", `
import socket, sys
sys.path.insert(0, "testdata")
import wb
proxy = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
proxy.bind(("127.0.0.1", 7002))
print("ready", flush=True)
flows = []
for i in range(6):
    data, peer = proxy.recvfrom(99)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(peer)
        flows.append(wb.origin(sock)["flow"])
    proxy.sendto(b"answer", peer)
print(*flows, flush=True)
`)
	env.Run("app", "python3", "-c", `
import socket
socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for i in range(2)]
for i in range(3):
    for s in socks:
        s.settimeout(5)
        s.sendto(b"x", ("192.0.2.1", 8080))
        assert s.recvfrom(99) == (b"answer", ("192.0.2.1", 8080))
`)
	if first, second := a.Wait(), b.Wait(); first != second || len(strings.Fields(first)) != 6 {
		t.Errorf("proxy a saw flows %s, proxy b %s", first, second)
	}
	waitPeers(t, e, 0)
}

// TestDatagramsOfUnawareProxy: one that sets no records inherits those of the
// flow that it goes on with, as for TCP.
func TestDatagramsOfUnawareProxy(t *testing.T) {
	t.Parallel()
	env, e := startUDPChain(t, "a", "b")
	cmd := env.Command("a", "python3", "testdata/datagrams.py", "unaware", "7001")
	cmd.Env = append(os.Environ(), "ORIGIN=192.0.2.1", "ORIGIN6=2001:db8::1")
	env.StartCommand(cmd)
	b := startRelay(env, "b")
	got := env.Run("app", "python3", "-c", `
import socket
for family, host in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
    s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(5)
    s.sendto(b"x", (host, 8080)); print(s.recvfrom(99)[1][0])
`)
	if want := "192.0.2.1\n2001:db8::1\n"; got != want {
		t.Errorf("answers came from %q, want %q", got, want)
	}
	var second datagramReport
	decode(t, b.Stop(syscall.SIGTERM), &second)
	if c := counters(t, e); second.Hops != 2 || second.Comm != "python3" || c["inherited"] != 2 || c["looped"] != 0 {
		t.Errorf("proxy b saw %+v; counters %v", second, c)
	}
}

// TestDatagramsAside: what a proxy's connected socket has inherited stays with
// its connection when it sends something elsewhere.
func TestDatagramsAside(t *testing.T) {
	t.Parallel()
	env, e := startUDPChain(t, "a", "b")
	a := env.Start("a", "python3", "-c", `
import socket
proxy = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
proxy.bind(("127.0.0.1", 7001))
print("ready", flush=True)
data, peer = proxy.recvfrom(99)
upstream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
upstream.connect(("192.0.2.1", 8080))
upstream.sendto(b"aside", ("192.0.2.2", 8080))
upstream.send(data)
answer, origin = upstream.recvfrom(99)
proxy.sendto(answer, peer)
print(*origin, *upstream.getpeername(), flush=True)
`)
	b := startRelay(env, "b")
	got := env.Run("app", "python3", "-c", `
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
s.sendto(b"x", ("192.0.2.1", 8080)); print(*s.recvfrom(99))
`)
	if want := "b'192.0.2.1 x' ('192.0.2.1', 8080)\n"; got != want {
		t.Errorf("application got %q, want %q", got, want)
	}
	if got, want := a.Wait(), "192.0.2.1 8080 192.0.2.1 8080"; got != want {
		t.Errorf("proxy a has its peer at %q, want %q", got, want)
	}
	var second datagramReport
	decode(t, b.Stop(syscall.SIGTERM), &second)
	if c := counters(t, e); c["inherited"] != 1 || second.Hops != 2 || second.Dst != "192.0.2.1 8080" {
		t.Errorf("proxy b saw %+v last; counters %v", second, c)
	}
}

// TestDatagramsWhenDown: a proxy that has ended is passed by, or what it wanted
// is refused, in the system call; also in the middle of a flow.
func TestDatagramsWhenDown(t *testing.T) {
	for _, onDown := range []policy.OnDown{policy.Bypass, policy.Block} {
		t.Run(onDown.String(), func(t *testing.T) {
			t.Parallel()
			env, e := startUDPChain(t)
			p := udpChain(env, "a")
			p.Providers[0].OnDown = onDown
			apply(t, e, p)
			proxy := startRelay(env, "a")
			app := env.StartCommand(downApp(env))
			proxy.Kill()
			got := app.Stop(syscall.SIGUSR1)
			want := map[policy.OnDown]string{policy.Bypass: "192.0.2.1 again", policy.Block: "EACCES"}[onDown]
			if got != want {
				t.Errorf("with the proxy dead: %s, want %s; counters %v", got, want, counters(t, e))
			}
		})
	}
}

// downApp has a flow, waits for a signal, and goes on.
func downApp(env *testenv.Env) *exec.Cmd {
	return env.Command("app", "python3", "-c", `
import errno, signal, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)
s.sendto(b"x", ("192.0.2.1", 8080)); s.recvfrom(99)
signal.signal(signal.SIGUSR1, lambda *_: None)
print("ready", flush=True)
signal.pause()
try:
    s.sendto(b"again", ("192.0.2.1", 8080)); print(s.recvfrom(99)[0].decode())
except OSError as e:
    print(errno.errorcode.get(e.errno, e))
`)
}

// TestDatagramsFromPeerAddresses: nobody can pass for the other end of a flow.
func TestDatagramsFromPeerAddresses(t *testing.T) {
	t.Parallel()
	env, _ := startUDPChain(t, "a")
	startRelay(env, "a")
	got := env.Run("app", "python3", "-c", `
import errno, socket, struct
def attempt(f):
    try:
        f(); return "ok"
    except OSError as e:
        return errno.errorcode[e.errno]
def bind4():
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind(("127.128.0.1", 7001))
def bind6():
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IPV6, 78, 1) # IPV6_FREEBIND
    s.bind(("fd77:6179:6269:6c6c::1", 7001))
def mapped():
    socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).bind(("::ffff:127.128.0.1", 7001))
def pktinfo():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    info = struct.pack("=I4s4s", 0, socket.inet_aton("127.128.0.1"), bytes(4))
    s.sendmsg([b"x"], [(socket.IPPROTO_IP, 8, info)], 0, ("127.0.0.1", 7001))
def stream():
    socket.socket().bind(("127.128.0.1", 7001))
print(*(attempt(f) for f in (bind4, bind6, mapped, pktinfo, stream)))
`)
	if want := "EADDRNOTAVAIL EADDRNOTAVAIL EADDRNOTAVAIL EADDRNOTAVAIL ok\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestDatagramsOfTheGone: who sends and ends at once is gone before a proxy can
// read what it has sent, which arrives all the same. The proxies stand still
// meanwhile.
func TestDatagramsOfTheGone(t *testing.T) {
	for _, first := range []string{"aware", "unaware"} {
		t.Run(first, func(t *testing.T) {
			t.Parallel()
			env, e := startUDPChain(t, "a", "b")
			received := env.ListenPacket("192.0.2.1:9090")
			cmd := env.Command("a", "python3", "testdata/datagrams.py", first, "7001")
			cmd.Env = append(os.Environ(), "ORIGIN=192.0.2.1", "ORIGIN_PORT=9090")
			a := env.StartCommand(cmd)
			startRelay(env, "b")
			p := udpChain(env, "a", "b")
			for i := range p.Filters {
				p.Filters[i].Ports = []policy.PortRange{policy.Port(9090)}
			}
			apply(t, e, p)
			a.Cmd.Process.Signal(syscall.SIGSTOP)
			env.Run("app", "python3", "-c", `
import socket
for i in range(20):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"unconnected %d" % i, ("192.0.2.1", 9090))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect(("192.0.2.1", 9090))
        s.send(b"connected %d" % i)
        s.send(b"connected %d, and more" % i)
`)
			a.Cmd.Process.Signal(syscall.SIGCONT)
			got := make(map[string]bool)
			received.SetReadDeadline(time.Now().Add(5 * time.Second))
			for buf := make([]byte, 99); len(got) < 60; {
				n, _, err := received.ReadFrom(buf)
				if err != nil {
					t.Fatalf("%d datagrams of 60 arrived: %v; counters %v", len(got), err, counters(t, e))
				}
				got[string(buf[:n])] = true
			}
			if c := counters(t, e); c["redirected"] != 80 || c["looped"] != 0 {
				t.Errorf("counters %v, want 40 flows through two proxies", c)
			}
			a.Kill()
			waitPeers(t, e, 0)
		})
	}
}

// TestDatagramsTooLate: an answer to a socket that is closed reaches no other
// one that has its port by then.
func TestDatagramsTooLate(t *testing.T) {
	for _, tt := range []struct{ proxy, host, how string }{
		{"127.0.0.1", "192.0.2.1", "sendto"},
		{"127.0.0.1", "192.0.2.1", "connect"},
		{"::1", "2001:db8::1", "sendto"},
		{"::1", "2001:db8::1", "connect"},
	} {
		t.Run(tt.how+" "+tt.host, func(t *testing.T) {
			t.Parallel()
			env, _ := startUDPChain(t, "a")
			proxy := env.Start("a", "python3", "-c", `
import errno, signal, socket, sys
host = sys.argv[1]
proxy = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
proxy.bind((host, 7001))
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
print("ready", flush=True)
data, peer = proxy.recvfrom(99)
signal.sigwait({signal.SIGUSR1})
try:
    proxy.sendto(data, peer); print("sent", flush=True)
except OSError as e:
    print(errno.errorcode[e.errno], flush=True)
`, tt.proxy)
			app := env.Start("app", "python3", "-c", `
import signal, socket, sys
how, host = sys.argv[1:]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
before = socket.socket(family, socket.SOCK_DGRAM)
before.bind(("", 5000))
if how == "connect":
    before.connect((host, 8080)); before.send(b"x")
else:
    before.sendto(b"x", (host, 8080))
before.close()
after = socket.socket(family, socket.SOCK_DGRAM)
after.bind(("", 5000))
after.setblocking(False)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
print("ready", flush=True)
signal.sigwait({signal.SIGUSR1})
try:
    print("got", after.recvfrom(99), flush=True)
except BlockingIOError:
    print("nothing", flush=True)
`, tt.how, tt.host)
			if got := proxy.Stop(syscall.SIGUSR1); got != "ECONNREFUSED" {
				t.Errorf("the proxy's answer: %s", got)
			}
			if got := app.Stop(syscall.SIGUSR1); got != "nothing" {
				t.Errorf("the later socket %s", got)
			}
		})
	}
}
