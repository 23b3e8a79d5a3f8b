package waybill

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// DefaultIdleTimeout ends flows of a [PacketListener].
const DefaultIdleTimeout = time.Minute

// flowBacklog is how many datagrams wait in a flow for their reader. More are
// dropped, as a full socket buffer does.
const flowBacklog = 256

// maxDatagram is the longest that UDP carries.
const maxDatagram = 65535

// PacketListener receives redirected datagrams and sorts them by flow: what
// one socket of an application and one destination say to each other.
type PacketListener struct {
	// IdleTimeout ends a flow in which no datagram went either way for so
	// long. It is read by AcceptConn. Default DefaultIdleTimeout.
	IdleTimeout time.Duration

	conn *net.UDPConn
	buf  []byte

	mu    sync.Mutex
	flows map[netip.AddrPort]*PacketConn
	swept time.Time
}

// ListenPacket listens for redirected datagrams. The network is "udp", "udp4"
// or "udp6".
func ListenPacket(ctx context.Context, network, address string) (*PacketListener, error) {
	var lc net.ListenConfig
	c, err := lc.ListenPacket(ctx, network, address)
	if err != nil {
		return nil, err
	}
	udp, ok := c.(*net.UDPConn)
	if !ok {
		c.Close()
		return nil, &OpError{Op: opAccept, Err: errors.New("network " + network + " is not UDP"), kind: ErrNotSupported}
	}
	return NewPacketListener(udp), nil
}

// NewPacketListener takes over a socket that is bound to a proxy's address.
func NewPacketListener(c *net.UDPConn) *PacketListener {
	return &PacketListener{conn: c, buf: make([]byte, maxDatagram), flows: make(map[netip.AddrPort]*PacketConn), swept: time.Now()}
}

// Addr is that of the socket.
func (l *PacketListener) Addr() net.Addr { return l.conn.LocalAddr() }

// SyscallConn gives access to the socket, for its options.
func (l *PacketListener) SyscallConn() (syscall.RawConn, error) { return l.conn.SyscallConn() }

// Close ends all flows.
func (l *PacketListener) Close() error {
	err := l.conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.flows {
		c.end()
	}
	return err
}

// Accept is [PacketListener.AcceptConn] for code that wants a [net.Listener].
func (l *PacketListener) Accept() (net.Conn, error) {
	c, err := l.AcceptConn()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptConn waits for the first datagram of the next flow and reads its
// records. Meanwhile it hands out the datagrams of all others, and ends those
// that are idle: so it is to be called again at once, from one goroutine. A
// flow that was not redirected is returned too: see [PacketConn.Redirected].
//
// An error that is not net.ErrClosed is of one flow, whose datagram is lost.
func (l *PacketListener) AcceptConn() (*PacketConn, error) {
	for {
		l.conn.SetReadDeadline(l.sweep())
		n, from, err := l.conn.ReadFromUDPAddrPort(l.buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case err != nil:
			return nil, err
		}
		peer := netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		data := append(make([]byte, 0, n), l.buf[:n]...)
		if l.deliver(peer, data) {
			continue
		}
		return l.open(peer, data)
	}
}

func (l *PacketListener) deliver(peer netip.AddrPort, data []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, ok := l.flows[peer]
	if ok {
		c.deliver(data)
	}
	return ok
}

func (l *PacketListener) open(peer netip.AddrPort, data []byte) (*PacketConn, error) {
	c := &PacketConn{listener: l, peer: peer, in: make(chan []byte, flowBacklog), done: make(chan struct{}), deadline: makeDeadline()}
	if err := c.query(); err != nil && !errors.Is(err, ErrNotRedirected) {
		return nil, err
	}
	c.deliver(data)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flows[peer] = c
	return c, nil
}

func (l *PacketListener) forget(c *PacketConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.flows[c.peer] == c {
		delete(l.flows, c.peer)
	}
	c.end()
}

// sweep ends idle flows, once in a while, and returns when to do so again.
func (l *PacketListener) sweep() (next time.Time) {
	timeout := l.IdleTimeout
	if timeout <= 0 {
		timeout = DefaultIdleTimeout
	}
	pause := min(time.Second, timeout/4)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.swept) >= pause {
		l.swept = now
		for peer, c := range l.flows {
			if now.Sub(time.Unix(0, c.last.Load())) >= timeout {
				delete(l.flows, peer)
				c.end()
			}
		}
	}
	return l.swept.Add(pause)
}

// PacketConn is a flow, as a connection: Read returns one datagram and Write
// sends one. What does not fit into the buffer of a Read is lost, as with every
// socket of UDP. When the flow has been idle for too long, or its listener is
// closed, Read and Write fail with net.ErrClosed.
type PacketConn struct {
	listener *PacketListener
	peer     netip.AddrPort
	in       chan []byte
	done     chan struct{}
	ended    sync.Once
	deadline deadline
	last     atomic.Int64 // when a datagram went either way, since 1970

	records Records
	context []byte
	dst     netip.AddrPort
	origin  Origin
}

var _ net.Conn = (*PacketConn)(nil)

// query reads the records from a socket that is connected to the peer: that is
// how the kernel side knows which flow is meant.
func (c *PacketConn) query() error {
	udp, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(c.peer))
	if err != nil {
		return opError(opAccept, err)
	}
	defer udp.Close()
	if c.records, err = QueryRecords(udp); err != nil {
		return err
	}
	if c.dst, err = OriginalDestination(udp); err != nil {
		return err
	}
	if c.context, err = QueryContext(udp); err != nil && !errors.Is(err, ErrNotRedirected) {
		return err
	}
	c.origin, err = QueryOrigin(udp)
	return err
}

func (c *PacketConn) deliver(data []byte) {
	c.last.Store(time.Now().UnixNano())
	select {
	case c.in <- data:
	default:
	}
}

func (c *PacketConn) end() { c.ended.Do(func() { close(c.done) }) }

// Redirected reports whether the flow carries records. One that does not was
// sent straight to the proxy's own address.
func (c *PacketConn) Redirected() bool { return len(c.records) > 0 }

// Records returns the records to set on the socket opened in turn. They must
// not be altered.
func (c *PacketConn) Records() Records { return c.records }

// Context returns what the provider's filter attached; nil: nothing.
func (c *PacketConn) Context() []byte { return c.context }

// OriginalDestination returns where the datagrams were going when they were
// redirected to this proxy; the zero value if they were not.
func (c *PacketConn) OriginalDestination() netip.AddrPort { return c.dst }

// Origin returns the process at the start of the chain; the zero value if the
// flow was not redirected.
func (c *PacketConn) Origin() Origin { return c.origin }

// Read waits for the next datagram.
func (c *PacketConn) Read(b []byte) (int, error) {
	select {
	case data := <-c.in:
		return copy(b, data), nil
	default:
	}
	select {
	case data := <-c.in:
		return copy(b, data), nil
	case <-c.done:
		return 0, c.opError("read", net.ErrClosed)
	case <-c.deadline.passed():
		return 0, c.opError("read", os.ErrDeadlineExceeded)
	}
}

// Write sends a datagram to the application. It does not wait.
func (c *PacketConn) Write(b []byte) (int, error) {
	select {
	case <-c.done:
		return 0, c.opError("write", net.ErrClosed)
	default:
	}
	c.last.Store(time.Now().UnixNano())
	return c.listener.conn.WriteToUDPAddrPort(b, c.peer)
}

// Close ends the flow for this side. A datagram that comes for it later begins
// a new one.
func (c *PacketConn) Close() error {
	c.listener.forget(c)
	return nil
}

// LocalAddr is the proxy's.
func (c *PacketConn) LocalAddr() net.Addr { return c.listener.Addr() }

// RemoteAddr is the address by which the proxy knows the flow: no other one
// has it.
func (c *PacketConn) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(c.peer) }

// SetDeadline is SetReadDeadline: nothing else waits.
func (c *PacketConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline makes Read fail from t on; zero: never.
func (c *PacketConn) SetReadDeadline(t time.Time) error {
	c.deadline.set(t)
	return nil
}

// SetWriteDeadline does nothing.
func (c *PacketConn) SetWriteDeadline(time.Time) error { return nil }

func (c *PacketConn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "udp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// deadline is a channel that is closed at a time which can be moved.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	done  chan struct{}
}

func makeDeadline() deadline { return deadline{done: make(chan struct{})} }

func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.done // it is just being closed
	}
	d.timer = nil
	select {
	case <-d.done:
		d.done = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	done := d.done
	d.timer = time.AfterFunc(max(0, time.Until(t)), func() { close(done) })
}
