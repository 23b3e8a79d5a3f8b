package waybill_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"testing"

	"github.com/waybill-net/waybill"
)

// relayAll relays all flows of l, and hands over each relay before it runs.
func relayAll(t *testing.T, l *waybill.PacketListener, prepare func(*waybill.PacketConn, *waybill.PacketRelay)) {
	t.Helper()
	go func() {
		for {
			c, err := l.AcceptConn()
			if err != nil {
				return
			}
			var d waybill.Dialer
			up, err := d.DialOriginalPacket(context.Background(), c)
			if err != nil {
				t.Error(err)
				return
			}
			r, err := waybill.NewPacketRelay(c, up)
			if err != nil {
				t.Error(err)
				return
			}
			if prepare != nil {
				prepare(c, r)
			}
			go r.Run()
		}
	}()
}

// everyKind of socket talks to the origin through a listener.
var everyKind = []struct{ name, listen, open string }{
	{"connected", "127.0.0.1:7001", `s = udp(); s.connect(("192.0.2.1", 80))`},
	{"unconnected", "127.0.0.1:7001", `s = udp(); to = ("192.0.2.1", 80)`},
	{"IPv6", "[::1]:7001", `s = udp(socket.AF_INET6); s.connect(("2001:db8::1", 80))`},
	{"unconnected IPv6", "[::1]:7001", `s = udp(socket.AF_INET6); to = ("2001:db8::1", 80)`},
	{"mapped", "127.0.0.1:7001", `s = udp(socket.AF_INET6); to = ("::ffff:192.0.2.1", 80)`},
	{"to a listener of both", "[::]:7001", `s = udp(); to = ("192.0.2.1", 80)`},
}

// relayed runs an application of each kind behind a relay, and compares what it
// prints.
func relayed(t *testing.T, lines, want string) {
	t.Helper()
	for _, kind := range everyKind {
		t.Run(kind.name, func(t *testing.T) {
			relayAll(t, listenPacket(t, kind.listen), nil)
			if got := datagrams("to = None\n" + kind.open + lines)(); got != want {
				t.Errorf("application printed %q, want %q", got, want)
			}
		})
	}
}

// TestRelayBoundaries: datagrams of all lengths, in bursts, arrive as they were
// sent and in order, both ways.
func TestRelayBoundaries(t *testing.T) {
	relayed(t, `
lengths = [64] * 32 + [1400] * 32 + [1400, 1400, 3, 0, 0, 5, 5, 7, 60000, 60000, 9, 9000, 9000, 100]
sent = [bytes([i]) * n for i, n in enumerate(lengths)]
for i in range(0, len(sent), 8):
    for d in sent[i:i + 8]:
        s.sendmsg([d], [], 0, to)
    for d in sent[i:i + 8]:
        assert s.recv(65535) == b"pong " + d, (i, len(d))
print("all")
`, "all")
}

// TestRelaySegments: an application lets the kernel cut its datagrams
// (UDP_SEGMENT) and hand over several as one (UDP_GRO). The proxy gets them so,
// too, and passes on the same ones.
func TestRelaySegments(t *testing.T) {
	relayed(t, `
SEGMENT, GRO = 103, 104
s.setsockopt(socket.SOL_UDP, GRO, 1)
for n, rest in ((100, 7), (1000, 1000), (1, 1)):
    sent = [bytes([i]) * n for i in range(20)] + [b"x" * rest]
    s.sendmsg([b"".join(sent)], [(socket.SOL_UDP, SEGMENT, n.to_bytes(2, "little"))], 0, to)
    got = []
    while len(got) < len(sent):
        data, control, _, _ = s.recvmsg(65535, 64)
        size = int.from_bytes(control[0][2], "little") if control else len(data)
        got += [data[i:i + size] for i in range(0, len(data), size)]
    assert got == [b"pong " + d for d in sent], (n, got)
print("all")
`, "all")
}

// TestRelayFlowsApart: what one socket says to two destinations is never taken
// together, though it comes from one port.
func TestRelayFlowsApart(t *testing.T) {
	relayAll(t, listenPacket(t, "127.0.0.1:7001"), nil)
	got := datagrams(`
s = udp()
for round in range(20):
    want = {}
    for i in range(10):
        for host in ("192.0.2.1", "192.0.2.2"):
            d = b"%s %d %d" % (host.encode(), round, i)
            s.sendmsg([d + b"a" * (60 - len(d)) + d + b"b" * (60 - len(d))], [(socket.SOL_UDP, 103, (60).to_bytes(2, "little"))], 0, (host, 80))
            want.setdefault(host, []).extend([b"pong " + d + b"a" * (60 - len(d)), b"pong " + d + b"b" * (60 - len(d))])
    got = {}
    for i in range(40):
        d, sender = s.recvfrom(65535)
        got.setdefault(sender[0], []).append(d)
    assert got == want, got
print("all")
`)()
	if got != "all" {
		t.Errorf("application printed %q", got)
	}
}

// TestRelayTOS: DSCP and ECN marks reach the origin, and those of its answers
// the application. The origin marks what can be marked as congested.
func TestRelayTOS(t *testing.T) {
	relayed(t, `
v6 = to is None and s.family == socket.AF_INET6 or to is not None and "." not in to[0]
level, option, received = (socket.IPPROTO_IPV6, 67, 66) if v6 else (socket.SOL_IP, 1, 13)
s.setsockopt(level, received, 1)
heard = []
for tos in (0, 0xb8, 0x02, 0xba, 0xb9, 0):
    for how in ("option", "control"):
        s.setsockopt(level, option, tos if how == "option" else 0)
        s.sendmsg([b"ping"], [(level, option, tos.to_bytes(4, "little"))] if how == "control" else [], 0, to)
        control = s.recvmsg(99, 99)[1]
        assert [c[1] for c in control] == [option], control
        heard.append(int.from_bytes(control[0][2], "little"))
print(*[hex(tos) for tos in heard[::2]])
assert heard[::2] == heard[1::2], heard
`, "0x0 0xb8 0x3 0xbb 0xbb 0x0")
}

// TestRelaySee: who sees the datagrams can keep some back, sees both directions
// and none after it has seen enough.
func TestRelaySee(t *testing.T) {
	seen := make(chan string, 10)
	relayAll(t, listenPacket(t, "127.0.0.1:7001"), func(_ *waybill.PacketConn, r *waybill.PacketRelay) {
		r.SeeSent = func(b []byte, tos uint8) (forward, more bool) {
			seen <- fmt.Sprintf("%s %#x", b, tos)
			return string(b) != "drop", string(b) != "enough"
		}
		r.SeeReceived = func(b []byte, _ uint8) (forward, more bool) { return string(b) != "pong secret", true }
	})
	got := datagrams(`
s = udp(); s.connect(("192.0.2.1", 80)); s.setsockopt(socket.SOL_IP, socket.IP_TOS, 0xb8)
for d in ("a", "drop", "secret", "enough", "drop"):
    s.send(d.encode())
print(s.recv(99), s.recv(99), s.recv(99))
`)()
	if want := "b'pong a' b'pong enough' b'pong drop'"; got != want {
		t.Errorf("application heard %s, want %s", got, want)
	}
	for _, want := range []string{"a 0xb8", "drop 0xb8", "secret 0xb8", "enough 0xb8"} {
		if got := <-seen; got != want {
			t.Errorf("seen %q, want %q", got, want)
		}
	}
	if n := len(seen); n > 0 {
		t.Errorf("%d datagrams were seen after enough", n)
	}
}

// TestRelayClose: who sees a datagram can end the flow. The next one begins
// another.
func TestRelayClose(t *testing.T) {
	flows := make(chan *waybill.PacketConn, 100)
	relayAll(t, listenPacket(t, "127.0.0.1:7001"), func(c *waybill.PacketConn, r *waybill.PacketRelay) {
		flows <- c
		if len(flows) == 1 {
			r.SeeReceived = func([]byte, uint8) (forward, more bool) {
				c.Close()
				return false, true
			}
		}
	})
	got := datagrams(`
s = udp(); s.connect(("192.0.2.1", 80)); s.settimeout(0.1)
heard = None
while not heard: # what is sent before the flow has ended is lost with it
    s.send(b"ping")
    try:
        heard = s.recv(99)
    except TimeoutError:
        pass
print(heard)
`)()
	if want := "b'pong ping'"; got != want {
		t.Errorf("application heard %s, want %s", got, want)
	}
	if _, err := (<-flows).Read(nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read of the flow that was closed: %v", err)
	}
}

// TestIdleFlows: a flow that waits holds no buffer for datagrams.
func TestIdleFlows(t *testing.T) {
	const flows, bound = 1000, 16 << 10
	running := make(chan struct{}, flows)
	l := listenPacket(t, "127.0.0.1:7001")
	relayAll(t, l, func(*waybill.PacketConn, *waybill.PacketRelay) { running <- struct{}{} })
	before := memory()
	app := datagrams(`
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
all = [udp() for i in range(1000)]
for s in all:
    s.connect(("192.0.2.1", 80))
    s.send(b"x" * 1400)
    s.recv(9999)
print("all", flush=True)
`)
	for range flows {
		<-running
	}
	if got := app(); got != "all" {
		t.Fatalf("application printed %q", got)
	}
	each := (memory() - before) / flows
	t.Logf("%d bytes for each of %d flows", each, flows)
	if each > bound {
		t.Errorf("%d bytes for each of %d idle flows, want %d at most", each, flows, bound)
	}
}

// memory is what this process uses, without what is shared by all flows.
func memory() uint64 {
	for range 3 {
		runtime.GC() // the pools let go of buffers in the second
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
