package waybill_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/windows"

	"github.com/waybill-net/waybill"
	"github.com/waybill-net/waybill/internal/standin"
	"github.com/waybill-net/waybill/internal/wfp"
)

// serveProxy is a proxy that forwards all that it accepts, and reports it.
func serveProxy(t *testing.T, address string) <-chan *waybill.Conn {
	t.Helper()
	l := listen(t, address)
	accepted := make(chan *waybill.Conn, 8)
	go func() {
		for {
			c, err := l.AcceptConn()
			if err != nil {
				return
			}
			accepted <- c
			go func() {
				defer c.Close()
				var d waybill.Dialer
				upstream, err := d.DialOriginal(context.Background(), c)
				if err != nil {
					t.Error(err)
					return
				}
				relay(c.TCPConn, upstream)
			}()
		}
	}()
	return accepted
}

func relay(client, upstream *net.TCPConn) {
	defer upstream.Close()
	go func() {
		io.Copy(upstream, client)
		upstream.CloseWrite()
	}()
	io.Copy(client, upstream)
}

// TestProxy: app -> proxy -> QUERY -> SET -> origin.
func TestProxy(t *testing.T) {
	for _, tt := range []struct{ name, listen, dial, dst string }{
		{"IPv4", "127.0.0.1:7001", origin4, origin4},
		{"IPv6", "[::1]:7001", origin6, origin6},
		{"IPv4-mapped", "127.0.0.1:7001", "[::ffff:192.0.2.1]:8080", origin4},
		{"dual-stack listener", ":7001", origin4, origin4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			standin.Redirect(t, standin.Policy{}, 7001)
			accepted := serveProxy(t, tt.listen)
			heard := standin.Application(tt.dial)
			c := <-accepted
			if !c.Redirected() || c.OriginalDestination() != netip.MustParseAddrPort(tt.dst) {
				t.Errorf("redirected %t, original destination %s, want %s", c.Redirected(), c.OriginalDestination(), tt.dst)
			}
			if got := heard(); got != "pong" {
				t.Errorf("application heard %q", got)
			}
			if n := standin.Redirects(t); n != 1 {
				t.Errorf("%d redirects, want 1", n)
			}
		})
	}
}

// TestChain: two proxies of two providers, each of which sees the flow once.
func TestChain(t *testing.T) {
	standin.Redirect(t, standin.Policy{}, 7001, 7002)
	first, second := serveProxy(t, "127.0.0.1:7001"), serveProxy(t, "127.0.0.1:7002")
	if got := standin.Application(origin4)(); got != "pong" {
		t.Errorf("application heard %q", got)
	}
	a, b := <-first, <-second
	if n := standin.Redirects(t); n != 2 || len(first)+len(second) > 0 {
		t.Errorf("%d redirects, want 2", n)
	}
	if a.OriginalDestination().String() != origin4 || b.OriginalDestination() != a.OriginalDestination() || len(b.Records()) <= len(a.Records()) {
		t.Errorf("first %s, %d bytes of records; second %s, %d bytes", a.OriginalDestination(), len(a.Records()), b.OriginalDestination(), len(b.Records()))
	}
}

// TestLoop is the negative control: a proxy that does not set the records gets
// its own connection, again and again.
func TestLoop(t *testing.T) {
	standin.Redirect(t, standin.Policy{}, 7001)
	l := listen(t, "127.0.0.1:7001")
	standin.Application(origin4)
	const enough = 8
	for range enough {
		c := accept(t, l)
		if c.OriginalDestination().String() != origin4 {
			t.Fatalf("original destination %s", c.OriginalDestination())
		}
		upstream, err := net.Dial("tcp", c.OriginalDestination().String())
		if err != nil {
			t.Fatal(err)
		}
		defer upstream.Close()
	}
	if n := standin.Redirects(t); n != enough+1 {
		t.Errorf("%d redirects, want %d", n, enough+1)
	}
	last := accept(t, l) // with its records the next one gets out
	var d waybill.Dialer
	upstream, err := d.DialOriginal(t.Context(), last)
	if err != nil {
		t.Fatal(err)
	}
	defer upstream.Close()
	if n := standin.Redirects(t); n != enough+1 {
		t.Errorf("%d redirects with records set, want %d", n, enough+1)
	}
}

// redirected returns the proxy's end of a redirected connection.
func redirected(t *testing.T, p standin.Policy) *waybill.Conn {
	t.Helper()
	c, err := waybill.NewConn(redirectedTCP(t, p))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// redirectedTCP is redirected, before anything is asked.
func redirectedTCP(t *testing.T, p standin.Policy) *net.TCPConn {
	t.Helper()
	standin.Redirect(t, p, 7001)
	l := listen(t, "127.0.0.1:7001")
	standin.Application(origin4)
	c, err := l.Listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// TestLongRecords: every answer about a short buffer, at once and later.
func TestLongRecords(t *testing.T) {
	for _, tt := range []struct {
		name    string
		padding uint32
		arm     standin.Armed
		err     error // nil: the records come
	}{
		{"122 with the size", 9000, standin.Armed{}, nil},
		{"122 without", 30000, standin.Armed{ShortError: 122, ShortReturns: standin.ShortZero}, nil},
		{"10014 with the size", 30000, standin.Armed{ShortError: 10014}, nil},
		{"10014 with a part", 30000, standin.Armed{ShortError: 10014, ShortReturns: standin.ShortPart}, nil},
		{"10055", 9000, standin.Armed{ShortError: 10055, ShortReturns: standin.ShortZero}, nil},
		{"234", 60000, standin.Armed{ShortError: 234}, nil},
		{"10022 with the size", 9000, standin.Armed{ShortError: 10022}, nil},
		{"10022 without", 9000, standin.Armed{ShortError: 10022, ShortReturns: standin.ShortZero}, waybill.ErrNotRedirected},
		{"too long", 66000, standin.Armed{}, wfp.ErrInsufficientBuffer},
	} {
		for _, pending := range []uint32{0, 1} {
			t.Run(tt.name+map[uint32]string{1: ", pending"}[pending], func(t *testing.T) {
				tcp := redirectedTCP(t, standin.Policy{Padding: tt.padding})
				tt.arm.Code, tt.arm.Pending, tt.arm.Delay = uint32(wfp.QueryRecords), pending, 1
				standin.Arm(t, tcp, tt.arm)
				r, err := waybill.QueryRecords(tcp)
				if tt.err != nil {
					if !errors.Is(err, tt.err) || r != nil {
						t.Errorf("%d bytes, %v; want %v", len(r), err, tt.err)
					}
					return
				}
				if err != nil || len(r) < int(tt.padding) {
					t.Fatalf("%d bytes, %v; want more than %d", len(r), err, tt.padding)
				}
				var d waybill.Dialer
				up, err := d.DialContext(t.Context(), r, "tcp", origin4)
				if err != nil {
					t.Fatal(err)
				}
				defer up.Close()
				if set := standin.SetOn(t, up.(*net.TCPConn)); !bytes.Equal(set, r) {
					t.Errorf("%d bytes were set, others than the %d that were read", len(set), len(r))
				}
			})
		}
	}
}

// TestErrors: every number of the table, for both kinds of request, at once
// and later.
func TestErrors(t *testing.T) {
	const query, set = 1, 2
	for _, tt := range []struct {
		errno    syscall.Errno
		requests int
		query    error // the sentinels
		set      error
		hint     string
	}{
		{wfp.EACCES, query | set, fs.ErrPermission, waybill.ErrPermission, "run elevated"},
		{wfp.EFAULT, query | set, nil, nil, "64 KiB|could not read"},
		{wfp.EINPROGRESS, query | set, nil, nil, "try again"},
		{wfp.EINTR, query | set, nil, nil, "try again"},
		{wfp.EINVAL, query | set, waybill.ErrNotRedirected, waybill.ErrInvalidRecords, "accepted socket|before bind"},
		{wfp.ENETDOWN, query | set, nil, nil, "network subsystem"},
		{wfp.ENOPROTOOPT, query, waybill.ErrNotSupported, nil, "protocol"},
		{wfp.ENOTCONN, query, windows.WSAENOTCONN, nil, "while it is connected"},
		{wfp.ENOTSOCK, query | set, nil, nil, "that is open"},
		{wfp.EOPNOTSUPP, query | set, waybill.ErrNotSupported, waybill.ErrNotSupported, "older than 8"},
		{wfp.ErrNotSupported, query | set, waybill.ErrNotSupported, waybill.ErrNotSupported, "older than 8"},
		{wfp.ErrInsufficientBuffer, query, nil, nil, "64 KiB"},
		{wfp.ErrOperationAborted, query | set, net.ErrClosed, net.ErrClosed, ""},
		{wfp.ENOBUFS, set, nil, nil, "memory"},
	} {
		for _, pending := range []uint32{0, 1} {
			arm := standin.Armed{Error: uint32(tt.errno), Pending: pending, Delay: 1}
			name := tt.errno.Error()
			if tt.requests&query != 0 {
				c := newSocket(t, windows.SOCK_STREAM, windows.WSA_FLAG_OVERLAPPED)
				for code, f := range map[wfp.Code]func(syscall.Conn) ([]byte, error){
					wfp.QueryRecords: func(c syscall.Conn) ([]byte, error) { return waybill.QueryRecords(c) },
					wfp.QueryContext: waybill.QueryContext,
				} {
					arm.Code = uint32(code)
					standin.Arm(t, c, arm)
					_, err := f(c)
					wantError(t, "query, "+name, err, tt.query, tt.errno, tt.hint)
				}
			}
			if tt.requests&set != 0 {
				c := newSocket(t, windows.SOCK_STREAM, windows.WSA_FLAG_OVERLAPPED)
				arm.Code = uint32(wfp.SetRecords)
				standin.Arm(t, c, arm)
				wantError(t, "set, "+name, waybill.SetRecords(c, waybill.Records("r")), tt.set, tt.errno, tt.hint)
			}
		}
	}
}

// wantError wants one of the hints, which have a | between them.
func wantError(t *testing.T, what string, err, sentinel error, errno syscall.Errno, hints string) {
	t.Helper()
	var op *waybill.OpError
	var got syscall.Errno
	if !errors.As(err, &op) || sentinel != nil && !errors.Is(err, sentinel) || !errors.As(err, &got) || got != errno {
		t.Errorf("%s: error %v, want %v with %d", what, err, sentinel, errno)
		return
	}
	if sentinel == waybill.ErrPermission && !errors.Is(err, fs.ErrPermission) {
		t.Errorf("%s: error %v is no fs.ErrPermission", what, err)
	}
	for hint := range strings.SplitSeq(hints, "|") {
		if strings.Contains(err.Error(), hint) {
			return
		}
	}
	t.Errorf("%s: message %q, want %q", what, err, hints)
}

// TestPending: who waits for a request that is pending.
func TestPending(t *testing.T) {
	c := redirected(t, standin.Policy{})
	arm := standin.Armed{Code: uint32(wfp.QueryRecords), Pending: 1, Delay: 50}
	standin.Arm(t, c, arm)
	if r, err := waybill.QueryRecords(c); err != nil || !bytes.Equal(r, c.Records()) {
		t.Errorf("%d bytes, %v", len(r), err)
	}

	arm.Delay = standin.Never
	standin.Arm(t, c, arm)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error)
	go func() {
		_, err := waybill.QueryRecordsContext(ctx, c)
		done <- err
	}()
	waitFor(t, func() bool { return standin.Pending(t) == 1 })
	cancel()
	err := <-done
	wantError(t, "cancelled", err, context.Canceled, wfp.ErrOperationAborted, "")
	if errors.Is(err, net.ErrClosed) {
		t.Errorf("%v: nobody has closed it", err)
	}
	if n := standin.Pending(t); n != 0 {
		t.Errorf("%d requests are pending", n)
	}

	deadline, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	s := newSocket(t, windows.SOCK_STREAM, windows.WSA_FLAG_OVERLAPPED)
	standin.Arm(t, s, standin.Armed{Code: uint32(wfp.SetRecords), Pending: 1, Delay: standin.Never})
	err = waybill.SetRecordsContext(deadline, s, c.Records())
	wantError(t, "deadline", err, context.DeadlineExceeded, wfp.ErrOperationAborted, "")
	var ne net.Error
	if !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("%v is no timeout", err)
	}
}

// TestAbandoned: a request that can not be cancelled is let go of, and keeps the
// memory to which the system still writes.
func TestAbandoned(t *testing.T) {
	c := redirected(t, standin.Policy{})
	standin.Arm(t, c, standin.Armed{Code: uint32(wfp.QueryRecords), Pending: 1, Delay: 1500, Deaf: 1})
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := waybill.QueryRecordsContext(ctx, c)
	wantError(t, "abandoned", err, context.DeadlineExceeded, wfp.ErrIOIncomplete, "")
	runtime.GC()
	fresh := make([][]byte, 0, 64) // would be at the same place
	for range cap(fresh) {
		fresh = append(fresh, make([]byte, 8<<10))
	}
	waitFor(t, func() bool { return standin.Pending(t) == 0 })
	for _, b := range fresh {
		if !bytes.Equal(b, make([]byte, len(b))) {
			t.Fatal("the answer was written to memory of others")
		}
	}
}

// TestDialErrors: what connect() says is not what SET says.
func TestDialErrors(t *testing.T) {
	refuse := func(string, string, syscall.RawConn) error { return wfp.EACCES }
	d := waybill.Dialer{Net: net.Dialer{Control: refuse}}
	_, err := d.DialContext(t.Context(), nil, "tcp", origin4)
	wantError(t, "connect", err, nil, wfp.EACCES, "firewall")
	if errors.Is(err, waybill.ErrPermission) {
		t.Errorf("%v: no records were set", err)
	}
	d.Net.Control = func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(s uintptr) {
			standin.Arm(t, socket(s), standin.Armed{Code: uint32(wfp.SetRecords), Error: uint32(wfp.EACCES)})
		})
	}
	_, err = d.DialContext(t.Context(), waybill.Records("r"), "tcp", origin4)
	wantError(t, "set", err, waybill.ErrPermission, wfp.EACCES, "run elevated")
	if strings.Contains(err.Error(), "firewall") {
		t.Errorf("%v: it was not connect()", err)
	}
}

// TestDialCancelled: the context of a dial ends a SET that is pending.
func TestDialCancelled(t *testing.T) {
	c := redirected(t, standin.Policy{})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	d := waybill.Dialer{Net: net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(s uintptr) {
			standin.Arm(t, socket(s), standin.Armed{Code: uint32(wfp.SetRecords), Pending: 1, Delay: standin.Never})
		})
	}}}
	_, err := d.DialContext(ctx, c.Records(), "tcp", origin4)
	var ne net.Error
	if !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("%v is no timeout", err)
	}
	if n := standin.Pending(t); n != 0 {
		t.Errorf("%d requests are pending", n)
	}
}

// TestClose: closing the socket aborts the request.
func TestClose(t *testing.T) {
	s := newSocket(t, windows.SOCK_STREAM, windows.WSA_FLAG_OVERLAPPED)
	standin.Arm(t, s, standin.Armed{Code: uint32(wfp.QueryContext), Pending: 1, Delay: standin.Never})
	done := make(chan error)
	go func() {
		_, err := waybill.QueryContext(s)
		done <- err
	}()
	waitFor(t, func() bool { return standin.Pending(t) == 1 })
	windows.Closesocket(windows.Handle(s))
	wantError(t, "closed", <-done, net.ErrClosed, wfp.ErrOperationAborted, "")
}

// TestSynchronousSocket: Winsock ignores the OVERLAPPED of a socket that was
// made without the attribute.
func TestSynchronousSocket(t *testing.T) {
	c := redirected(t, standin.Policy{})
	s := newSocket(t, windows.SOCK_STREAM, 0)
	standin.Arm(t, s, standin.Armed{Code: uint32(wfp.SetRecords), Pending: 1, Delay: standin.Never})
	if err := waybill.SetRecords(s, c.Records()); err != nil {
		t.Error(err)
	}
	if set := standin.SetOn(t, s); !bytes.Equal(set, c.Records()) {
		t.Errorf("%d bytes were set, want %d", len(set), len(c.Records()))
	}
}

// TestCompletionPort: a socket's port hears nothing of our requests, for the
// port of a socket of package net is the runtime's. A request that does not
// keep itself from there is heard.
func TestCompletionPort(t *testing.T) {
	s := newSocket(t, windows.SOCK_STREAM, windows.WSA_FLAG_OVERLAPPED)
	port, err := windows.CreateIoCompletionPort(windows.Handle(s), 0, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer windows.CloseHandle(port)
	answer := make([]byte, 4)
	standin.Arm(t, s, standin.Armed{Code: uint32(wfp.QueryContext), Pending: 1, Delay: 10}, 1, 2, 3, 4)

	if b, err := waybill.QueryContext(s); !bytes.Equal(b, []byte{1, 2, 3, 4}) || err != nil {
		t.Errorf("%x, %v", b, err)
	}
	var (
		n   uint32
		key uintptr
		o   *windows.Overlapped
		own windows.Overlapped
	)
	if err := windows.GetQueuedCompletionStatus(port, &n, &key, &o, 50); err != windows.WAIT_TIMEOUT {
		t.Errorf("the port heard of %d bytes, %v", n, err)
	}
	err = windows.WSAIoctl(windows.Handle(s), uint32(wfp.QueryContext), nil, 0, &answer[0], 4, &n, &own, 0)
	if err != wfp.ErrIOPending {
		t.Fatal(err)
	}
	if err := windows.GetQueuedCompletionStatus(port, &n, &key, &o, 5000); err != nil || n != 4 || o != &own {
		t.Errorf("the port heard of %d bytes, %v", n, err)
	}
}

// TestSet: when and on what records can be set.
func TestSet(t *testing.T) {
	c := redirected(t, standin.Policy{})
	altered := append(waybill.Records(nil), c.Records()...)
	altered[20] ^= 1
	var d waybill.Dialer
	_, err := d.DialContext(t.Context(), altered, "tcp", origin4)
	wantError(t, "altered", err, waybill.ErrInvalidRecords, wfp.EINVAL, "unaltered")
	wantError(t, "accepted socket", waybill.SetRecords(c, altered), waybill.ErrInvalidRecords, wfp.EINVAL, "before bind")
	wantError(t, "empty", waybill.SetRecords(c, nil), waybill.ErrInvalidRecords, wfp.EINVAL, "")
	udp := newSocket(t, windows.SOCK_DGRAM, windows.WSA_FLAG_OVERLAPPED)
	wantError(t, "UDP", waybill.SetRecords(udp, c.Records()), waybill.ErrInvalidRecords, wfp.EINVAL, "TCP socket")
	bound := newSocket(t, windows.SOCK_STREAM, windows.WSA_FLAG_OVERLAPPED)
	if err := windows.Bind(windows.Handle(bound), &windows.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	wantError(t, "bound", waybill.SetRecords(bound, c.Records()), waybill.ErrInvalidRecords, wfp.EINVAL, "before bind")

	d.Net.LocalAddr = &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)} // bind() comes after the records
	up, err := d.DialContext(t.Context(), c.Records(), "tcp", origin4)
	if err != nil {
		t.Fatal(err)
	}
	up.Close()
	if n := standin.Redirects(t); n != 1 {
		t.Errorf("%d redirects, want 1", n)
	}
	closed := newSocket(t, windows.SOCK_STREAM, windows.WSA_FLAG_OVERLAPPED)
	windows.Closesocket(windows.Handle(closed))
	wantError(t, "not a socket", waybill.SetRecords(closed, c.Records()), nil, wfp.ENOTSOCK, "that is open")
}

func TestNotRedirected(t *testing.T) {
	l := listen(t, "127.0.0.1:7001")
	heard := standin.Application("127.0.0.1:7001")
	c := accept(t, l)
	if c.Redirected() || c.OriginalDestination().IsValid() {
		t.Errorf("records %d bytes, original destination %s", len(c.Records()), c.OriginalDestination())
	}
	_, err := waybill.QueryRecords(c)
	wantError(t, "records", err, waybill.ErrNotRedirected, wfp.EINVAL, "accepted socket")
	_, err = waybill.OriginalDestination(c)
	wantError(t, "original destination", err, waybill.ErrNotRedirected, wfp.EINVAL, "")
	var d waybill.Dialer
	if _, err := d.DialOriginal(t.Context(), c); !errors.Is(err, waybill.ErrNotRedirected) {
		t.Errorf("dial: %v", err)
	}
	_, err = waybill.QueryRecords(l.Listener.(*net.TCPListener))
	wantError(t, "listener", err, nil, wfp.ENOTCONN, "accepted socket")
	if _, err := waybill.QueryOrigin(c); !errors.Is(err, waybill.ErrNotSupported) {
		t.Errorf("origin: %v", err)
	}
	if _, _, err := waybill.QueryState(c); !errors.Is(err, waybill.ErrNotSupported) {
		t.Errorf("state: %v", err)
	}
	c.Close()
	heard()
	if _, err := waybill.QueryRecords(c); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// TestOriginalDestination: who attaches no context, or one in a form of its
// own, may answer SO_ORIGINAL_DST, as containers' redirector does.
func TestOriginalDestination(t *testing.T) {
	c := redirected(t, standin.Policy{Plain: 1})
	if c.OriginalDestination().String() != origin4 {
		t.Errorf("original destination %s", c.OriginalDestination())
	}
	_, err := waybill.QueryContext(c)
	wantError(t, "context", err, waybill.ErrNotRedirected, wfp.EINVAL, "")
}

// TestUnknownDestination: a context in another form, and no SO_ORIGINAL_DST. The
// proxy has to find out by itself.
func TestUnknownDestination(t *testing.T) {
	tcp := redirectedTCP(t, standin.Policy{})
	standin.Arm(t, tcp, standin.Armed{Code: uint32(wfp.QueryContext)}, []byte("tenant=42")...)
	c, err := waybill.NewConn(tcp)
	if err != nil || !c.Redirected() || c.OriginalDestination().IsValid() {
		t.Fatalf("%v, original destination %s", err, c.OriginalDestination())
	}
	if b, err := waybill.QueryContext(c); string(b) != "tenant=42" || err != nil {
		t.Errorf("context %q, %v", b, err)
	}
	var d waybill.Dialer
	if _, err := d.DialOriginal(t.Context(), c); !errors.Is(err, waybill.ErrNotRedirected) || !strings.Contains(err.Error(), "QueryContext") {
		t.Errorf("dial: %v", err)
	}
	up, err := d.DialContext(t.Context(), c.Records(), "tcp", origin4)
	if err != nil {
		t.Fatal(err)
	}
	up.Close()
	if n := standin.Redirects(t); n != 1 {
		t.Errorf("%d redirects, want 1", n)
	}
}

func TestEndpointHandle(t *testing.T) {
	if h, err := waybill.QueryEndpointHandle(newSocket(t, windows.SOCK_STREAM, windows.WSA_FLAG_OVERLAPPED)); h < 0xE0000000 || err != nil {
		t.Errorf("%#x, %v", h, err)
	}
}

func waitFor(t *testing.T, is func() bool) {
	t.Helper()
	for range 500 {
		if is() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("it does not happen")
}
