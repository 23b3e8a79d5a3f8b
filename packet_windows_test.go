package waybill_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/waybill-net/waybill"
	"github.com/waybill-net/waybill/internal/standin"
)

// forward relays all flows until the listener is closed, and reports each, or
// why there is none.
func forward(t *testing.T, l *waybill.PacketListener) (<-chan *waybill.PacketConn, <-chan error) {
	t.Helper()
	flows, errs := make(chan *waybill.PacketConn, 8), make(chan error, 8)
	go func() {
		for {
			c, err := l.AcceptConn()
			switch {
			case errors.Is(err, net.ErrClosed):
				return
			case err != nil:
				errs <- err
				continue
			}
			flows <- c
			var d waybill.Dialer
			up, err := d.DialOriginalPacket(context.Background(), c)
			if err != nil {
				errs <- err
				continue
			}
			relay, err := waybill.NewPacketRelay(c, up)
			if err != nil {
				errs <- err
				continue
			}
			go relay.Run()
		}
	}()
	return flows, errs
}

// TestPackets: records and context come beside the first datagram of a flow, and
// go with the first of the proxied one. The proxy's own socket would be
// redirected without.
func TestPackets(t *testing.T) {
	for _, tt := range []struct{ network, listen, dst, other string }{
		{"udp4", "127.0.0.1:7001", origin4, "127.0.0.1:8080"},
		{"udp6", "[::1]:7001", origin6, "[::1]:8080"},
	} {
		t.Run(tt.network, func(t *testing.T) {
			standin.Redirect(t, standin.Policy{}, 7001)
			l, err := waybill.ListenPacket(t.Context(), "udp", tt.listen)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			app, err := net.ListenPacket(tt.network, ":0")
			if err != nil {
				t.Fatal(err)
			}
			defer app.Close()
			flows, errs := forward(t, l)
			for _, say := range []string{"first", "second"} {
				send(t, app, tt.dst, say)
				if heard := receive(t, app); heard != "pong "+say {
					t.Fatalf("application heard %q", heard)
				}
			}
			c := <-flows
			if !c.Redirected() || c.OriginalDestination().String() != tt.dst || len(c.Context()) != 256 {
				t.Errorf("redirected %t, original destination %s, context of %d bytes", c.Redirected(), c.OriginalDestination(), len(c.Context()))
			}
			if n := standin.Redirects(t); n != 1 || len(flows)+len(errs) > 0 {
				t.Errorf("%d redirects, %d more flows, %d errors", n, len(flows), len(errs))
			}

			// What the same socket says to another destination can not be told
			// apart from the second datagram on.
			send(t, app, tt.other, "other")
			if err := <-errs; !errors.Is(err, waybill.ErrNotSupported) {
				t.Errorf("another destination: %v", err)
			}
		})
	}
}

func send(t *testing.T, from net.PacketConn, to, say string) {
	t.Helper()
	if _, err := from.WriteTo([]byte(say), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to))); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, c net.PacketConn) string {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 64)
	n, _, err := c.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

// TestPacketsWithoutRecords is the negative control: the proxy's datagram, sent
// without records, comes back to the proxy.
func TestPacketsWithoutRecords(t *testing.T) {
	standin.Redirect(t, standin.Policy{}, 7001)
	l, err := waybill.ListenPacket(t.Context(), "udp", "127.0.0.1:7001")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	up, err := net.ListenPacket("udp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	for i := range 4 {
		send(t, up, origin4, "ping")
		c, err := l.AcceptConn()
		if err != nil || c.OriginalDestination().String() != origin4 {
			t.Fatalf("datagram %d: %v", i, err)
		}
		up, err = net.ListenPacket("udp4", ":0") // as a relay opens one for each flow
		if err != nil {
			t.Fatal(err)
		}
		defer up.Close()
	}
	if n := standin.Redirects(t); n != 4 {
		t.Errorf("%d redirects, want 4", n)
	}
}
