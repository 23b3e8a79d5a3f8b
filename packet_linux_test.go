package waybill_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/waybill-net/waybill"
)

func listenPacket(t *testing.T, address string) *waybill.PacketListener {
	t.Helper()
	l, err := waybill.ListenPacket(t.Context(), "udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// forward relays all flows until the listener is closed, and reports each.
func forward(t *testing.T, l *waybill.PacketListener) <-chan *waybill.PacketConn {
	t.Helper()
	flows := make(chan *waybill.PacketConn, 16)
	go func() {
		for {
			c, err := l.AcceptConn()
			if err != nil {
				return
			}
			flows <- c
			var d waybill.Dialer
			up, err := d.DialOriginalPacket(context.Background(), c)
			if err != nil {
				t.Error(err)
				return
			}
			go copyDatagrams(up, c)
			go copyDatagrams(c, up)
		}
	}()
	return flows
}

func copyDatagrams(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 65536)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		to.Write(buf[:n])
	}
}

// TestPackets: a proxy of UDP gets each flow as a connection, with its records,
// whether the application's socket is connected or not.
func TestPackets(t *testing.T) {
	for _, tt := range []struct{ name, listen, lines, heard, dst string }{
		{"connected", "127.0.0.1:7001", `s = udp(); s.connect(("192.0.2.1", 80)); s.send(b"ping"); print(s.recv(99))`, "b'pong ping'", "192.0.2.1:80"},
		{"unconnected", "127.0.0.1:7001", `s = udp(); s.sendto(b"ping", ("192.0.2.1", 80)); print(*s.recvfrom(99))`, "b'pong ping' ('192.0.2.1', 80)", "192.0.2.1:80"},
		{"IPv6", "[::1]:7001", `s = udp(socket.AF_INET6); s.connect(("2001:db8::1", 80)); s.send(b"ping"); print(s.recv(99))`, "b'pong ping'", "[2001:db8::1]:80"},
		{"unconnected IPv6", "[::1]:7001", `s = udp(socket.AF_INET6); s.sendto(b"ping", ("2001:db8::1", 80)); print(s.recvfrom(99)[1][:2])`, "('2001:db8::1', 80)", "[2001:db8::1]:80"},
		{"IPv4-mapped", "127.0.0.1:7001", `s = udp(socket.AF_INET6); s.sendto(b"ping", ("::ffff:192.0.2.1", 80)); print(s.recvfrom(99)[1][:2])`, "('::ffff:192.0.2.1', 80)", "192.0.2.1:80"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := listenPacket(t, tt.listen)
			flows := forward(t, l)
			if got := datagrams(tt.lines)(); got != tt.heard {
				t.Errorf("application heard %s, want %s", got, tt.heard)
			}
			c := <-flows
			if !c.Redirected() || c.OriginalDestination() != netip.MustParseAddrPort(tt.dst) {
				t.Errorf("redirected %t, original destination %s, want %s", c.Redirected(), c.OriginalDestination(), tt.dst)
			}
			if o := c.Origin(); o.Comm != "python3" || o.FlowID == 0 {
				t.Errorf("origin %+v", o)
			}
			if string(c.Context()) != "tenant=42" {
				t.Errorf("context %q", c.Context())
			}
		})
	}
}

// TestPacketFlows: what one socket says to two destinations are two flows, and
// a datagram to the proxy's own address belongs to none.
func TestPacketFlows(t *testing.T) {
	l := listenPacket(t, "127.0.0.1:7001")
	heard := datagrams(`
s = udp()
for i in range(3):
    s.sendto(b"a", ("192.0.2.1", 80))
    s.sendto(b"b", ("127.0.0.1", 7001))
print(sorted({s.recvfrom(99) for i in range(2)}))`)
	answer := map[bool]string{true: "redirected", false: "straight"}
	for range 2 {
		c, err := l.AcceptConn()
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte(answer[c.Redirected()]))
	}
	if got, want := heard(), "[(b'redirected', ('192.0.2.1', 80)), (b'straight', ('127.0.0.1', 7001))]"; got != want {
		t.Errorf("application heard %s, want %s", got, want)
	}
}

func TestPacketDeadlineAndIdle(t *testing.T) {
	l := listenPacket(t, "127.0.0.1:7001")
	l.IdleTimeout = 200 * time.Millisecond
	datagrams(`udp().sendto(b"ping", ("192.0.2.1", 80))`)()
	c, err := l.AcceptConn()
	if err != nil {
		t.Fatal(err)
	}
	accepting := make(chan error)
	go func() {
		_, err := l.AcceptConn()
		accepting <- err
	}()
	buf := make([]byte, 16)
	if n, err := c.Read(buf); string(buf[:n]) != "ping" || err != nil {
		t.Errorf("read %q, %v", buf[:n], err)
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := c.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	c.SetReadDeadline(time.Time{})
	if _, err := c.Read(buf); !errors.Is(err, net.ErrClosed) {
		t.Errorf("idle: %v", err)
	}
	if _, err := c.Write(buf); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write when idle: %v", err)
	}
	l.Close()
	if err := <-accepting; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
}
