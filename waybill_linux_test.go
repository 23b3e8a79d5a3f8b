package waybill_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-net/waybill"
)

func TestProxy(t *testing.T) {
	for _, tt := range []struct{ name, listen, dial, dst string }{
		{"IPv4", "127.0.0.1:7001", "192.0.2.1:80", "192.0.2.1:80"},
		{"IPv6", "[::1]:7001", "[2001:db8::1]:80", "[2001:db8::1]:80"},
		{"IPv4-mapped", "127.0.0.1:7001", "[::ffff:192.0.2.1]:80", "192.0.2.1:80"},
		{"dual-stack listener", ":7001", "192.0.2.1:80", "192.0.2.1:80"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := listen(t, tt.listen)
			heard := application(tt.dial)
			c := accept(t, l)
			if !c.Redirected() || c.OriginalDestination() != netip.MustParseAddrPort(tt.dst) {
				t.Errorf("redirected %t, original destination %s, want %s", c.Redirected(), c.OriginalDestination(), tt.dst)
			}
			o := c.Origin()
			if o.Comm != "python3" || o.PID != o.TGID || o.UID != uint32(os.Getuid()) || o.FlowID == 0 || o.Start == 0 || o.CgroupID == 0 || o.NetNSCookie == 0 {
				t.Errorf("origin %+v", o)
			}
			state, hops, err := waybill.QueryState(c)
			if state != waybill.RedirectedBySelf || hops != 1 || err != nil {
				t.Errorf("state %v, %d hops, %v", state, hops, err)
			}
			if context, err := waybill.QueryContext(c); string(context) != "tenant=42" || err != nil {
				t.Errorf("context %q, %v", context, err)
			}

			var d waybill.Dialer
			upstream, err := d.DialOriginal(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			defer upstream.Close()
			go func() {
				io.Copy(upstream, c.TCPConn)
				upstream.CloseWrite()
			}()
			io.Copy(c.TCPConn, upstream)
			c.Close()
			if got := heard(); got != "pong" {
				t.Errorf("application heard %q", got)
			}
		})
	}
}

// TestControlRunsBeforeRecords: a caller's own control function still works.
func TestControlRunsBeforeRecords(t *testing.T) {
	l := listen(t, "127.0.0.1:7001")
	heard := application("192.0.2.1:80")
	c := accept(t, l)
	ran := false
	control := func(network, address string, _ syscall.RawConn) error {
		ran = network == "tcp4" && address == "192.0.2.1:80"
		return nil
	}
	d := waybill.Dialer{Net: net.Dialer{Control: control}}
	upstream, err := d.DialContext(t.Context(), c.Records(), "tcp", "192.0.2.1:80")
	if err != nil || !ran {
		t.Fatalf("ran %t, %v", ran, err)
	}
	if state, hops, err := waybill.QueryState(upstream.(*net.TCPConn)); state != waybill.RedirectedBySelf || hops != 1 || err != nil {
		t.Errorf("upstream: state %v, %d hops, %v", state, hops, err)
	}
	upstream.Close()
	c.Close()
	heard()

	refuse := errors.New("refused by the caller")
	d.Net.Control = func(string, string, syscall.RawConn) error { return refuse }
	if _, err := d.DialContext(t.Context(), nil, "tcp", "192.0.2.1:80"); !errors.Is(err, refuse) {
		t.Errorf("error %v, want the control function's", err)
	}
}

func TestNotRedirected(t *testing.T) {
	l := listen(t, "127.0.0.1:7001")
	heard := application("127.0.0.1:7001") // to the proxy's own address
	c := accept(t, l)
	if c.Redirected() || c.Records() != nil || c.OriginalDestination().IsValid() {
		t.Errorf("records %d bytes, original destination %s", len(c.Records()), c.OriginalDestination())
	}
	var d waybill.Dialer
	if _, err := d.DialOriginal(t.Context(), c); !errors.Is(err, waybill.ErrNotRedirected) {
		t.Errorf("dial: %v", err)
	}
	_, err := waybill.QueryRecords(c)
	wantError(t, "records", err, waybill.ErrNotRedirected, syscall.ENODATA)
	_, err = waybill.QueryOrigin(c)
	wantError(t, "origin", err, waybill.ErrNotRedirected, syscall.ENODATA)
	_, err = waybill.QueryContext(c)
	wantError(t, "context", err, waybill.ErrNotRedirected, syscall.ENODATA)
	_, err = waybill.OriginalDestination(c)
	wantError(t, "original destination", err, waybill.ErrNotRedirected, syscall.ENODATA)
	if state, hops, err := waybill.QueryState(c); state != waybill.NotRedirected || hops != 0 || err != nil {
		t.Errorf("state %v, %d hops, %v", state, hops, err)
	}
	c.Close()
	heard()
}

func wantError(t *testing.T, what string, err, sentinel error, errno syscall.Errno) {
	t.Helper()
	var op *waybill.OpError
	var got syscall.Errno
	if !errors.As(err, &op) || sentinel != nil && !errors.Is(err, sentinel) || !errors.As(err, &got) || got != errno {
		t.Errorf("%s: error %v, want %v with %v", what, err, sentinel, errno)
	}
}

func TestSetRecordsErrors(t *testing.T) {
	l := listen(t, "127.0.0.1:7001")
	heard := application("192.0.2.1:80")
	c := accept(t, l)
	altered := append(waybill.Records(nil), c.Records()...)
	altered[20] ^= 1
	var d waybill.Dialer
	_, err := d.DialContext(t.Context(), altered, "tcp", "192.0.2.1:80")
	wantError(t, "altered", err, waybill.ErrInvalidRecords, syscall.EINVAL)
	wantError(t, "accepted socket", waybill.SetRecords(c, c.Records()), waybill.ErrInvalidRecords, syscall.EINVAL)
	wantError(t, "empty", waybill.SetRecords(c, nil), waybill.ErrInvalidRecords, syscall.EINVAL)
	udp, err := net.Dial("udp", "192.0.2.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	wantError(t, "connected UDP", waybill.SetRecords(udp.(*net.UDPConn), c.Records()), waybill.ErrInvalidRecords, syscall.EINVAL)

	asNobody(t, func() {
		// In the provider's cgroup no privilege is needed.
		up, err := d.DialContext(t.Context(), c.Records(), "tcp", "127.0.0.1:7001")
		if err != nil {
			t.Errorf("without privilege, in the provider's cgroup: %v", err)
			return
		}
		up.Close()
	})
	c.Close()
	heard()
}

// asNobody runs f on a thread without privileges.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Raw: for this thread alone, which is not used again.
		runtime.LockOSThread()
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
			t.Errorf("setresuid: %v", errno)
			return
		}
		f()
	}()
	<-done
}

func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		errno    syscall.Errno
		sentinel error
		hint     string
	}{
		{syscall.ELOOP, waybill.ErrTooManyHops, "at most 8"},
		{syscall.ENOPROTOOPT, waybill.ErrNotSupported, "scope"},
		{syscall.EOPNOTSUPP, waybill.ErrNotSupported, "scope"},
		{syscall.ECONNREFUSED, nil, ""},
	} {
		d := waybill.Dialer{Net: net.Dialer{Control: func(string, string, syscall.RawConn) error { return tt.errno }}}
		_, err := d.DialContext(t.Context(), nil, "tcp", "127.0.0.1:1")
		wantError(t, tt.errno.Error(), err, tt.sentinel, tt.errno)
		if !strings.Contains(err.Error(), tt.hint) || !strings.HasPrefix(err.Error(), "waybill: dial: ") {
			t.Errorf("%v: message %q", tt.errno, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	var d waybill.Dialer
	_, err := d.DialContext(ctx, nil, "tcp", "127.0.0.1:1")
	var ne net.Error
	if !errors.As(err, &ne) || !ne.Timeout() || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deadline: %v", err)
	}
	_, err = waybill.QueryRecords(closedConn(t))
	if !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed connection: %v", err)
	}
}

func closedConn(t *testing.T) *net.TCPConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	return c.(*net.TCPConn)
}
