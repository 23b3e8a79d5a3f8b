package waybill

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// PacketConn is a flow, as a connection: Read returns one datagram and Write
// sends one. What does not fit into the buffer of a Read is lost, as with every
// socket of UDP. When the flow has been idle for too long, or its listener is
// closed, Read and Write fail with net.ErrClosed.
type PacketConn struct {
	listener *PacketListener
	peer     netip.AddrPort
	last     atomic.Int64 // when a datagram went either way, since 1970
	deadline deadline
	arrived  chan struct{} // has one element while backlog may have some
	done     chan struct{}

	mu      sync.Mutex
	backlog backlog
	relay   *PacketRelay // sends what comes, if it is not nil
	onEnd   func()
	ended   bool

	records Records
	context []byte
	dst     netip.AddrPort
	origin  Origin
}

var _ net.Conn = (*PacketConn)(nil)

func newPacketConn(l *PacketListener, peer netip.AddrPort) *PacketConn {
	return &PacketConn{
		listener: l, peer: peer, deadline: makeDeadline(),
		arrived: make(chan struct{}, 1), done: make(chan struct{}),
	}
}

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
	datagram, _, err := c.ReadDatagram()
	return copy(b, datagram), err
}

// ReadDatagram is Read without a buffer: it returns the whole datagram, which
// is the caller's, and its TOS: of IPv6 its traffic class. DSCP and ECN marks
// are in it.
func (c *PacketConn) ReadDatagram() (datagram []byte, tos uint8, err error) {
	m, err := c.wait()
	return m.Data, m.TOS, err
}

// Write sends a datagram to the application.
func (c *PacketConn) Write(b []byte) (int, error) { return c.WriteTOS(b, 0) }

// WriteTOS is Write with a TOS.
func (c *PacketConn) WriteTOS(b []byte, tos uint8) (int, error) {
	select {
	case <-c.done:
		return 0, c.opError("write", net.ErrClosed)
	default:
	}
	c.last.Store(time.Now().UnixNano())
	return c.listener.socket.WriteTOS(b, tos, c.peer)
}

// Close ends the flow for this side. A datagram that comes for it later begins
// a new one.
func (c *PacketConn) Close() error {
	c.listener.forget(c)
	c.end()
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
