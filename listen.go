package waybill

import (
	"context"
	"errors"
	"net"
	"net/netip"
)

// Listener accepts redirected connections and reads their records.
type Listener struct {
	net.Listener
}

// Listen listens for redirected connections. The network is "tcp", "tcp4" or
// "tcp6".
func Listen(ctx context.Context, network, address string) (*Listener, error) {
	var lc net.ListenConfig
	// A client with MPTCP would get an MPTCP socket here, and those do not
	// pass socket options of unknown levels on to the connection that
	// carries the records. Without it, it falls back to TCP.
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &Listener{l}, nil
}

// Accept is [Listener.AcceptConn] for code that wants a [net.Listener].
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.AcceptConn()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptConn waits for the next connection and reads its records. A
// connection that was not redirected, or whose client has closed it already,
// is returned too: see [Conn.Redirected]. If waybill does not cover the
// socket, the connection is closed and the error wraps ErrNotSupported.
func (l *Listener) AcceptConn() (*Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		nc.Close()
		return nil, &OpError{Op: opAccept, Err: errors.New("the listener is not TCP"), kind: ErrNotSupported}
	}
	c, err := NewConn(tcp)
	if err != nil {
		tcp.Close()
		return nil, err
	}
	return c, nil
}

// Conn is an accepted connection with what its records say.
type Conn struct {
	*net.TCPConn

	records Records
	dst     netip.AddrPort
	origin  Origin
}

// NewConn reads the records of an accepted connection, for proxies with an
// accept loop of their own. On success it owns tcp; on an error the caller
// does.
func NewConn(tcp *net.TCPConn) (*Conn, error) {
	c := &Conn{TCPConn: tcp}
	err := c.query()
	if err == nil {
		return c, nil
	}
	if errors.Is(err, ErrNotRedirected) || errors.Is(err, errNotConnected) {
		return &Conn{TCPConn: tcp}, nil
	}
	return nil, err
}

func (c *Conn) query() (err error) {
	if c.records, err = QueryRecords(c.TCPConn); err != nil {
		return err
	}
	c.dst, c.origin, err = describe(c.TCPConn)
	return err
}

// Redirected reports whether the connection carries records. One that does
// not came straight to the proxy's own address; dialling on its behalf to
// that address would make the proxy call itself.
func (c *Conn) Redirected() bool { return len(c.records) > 0 }

// Records returns the records to set on the connection opened in turn. They
// must not be altered.
func (c *Conn) Records() Records { return c.records }

// OriginalDestination returns where the connection was going when it was
// redirected to this proxy; the zero value if it was not, or if on Windows its
// redirector does not tell.
func (c *Conn) OriginalDestination() netip.AddrPort { return c.dst }

// Origin returns the process at the start of the chain; the zero value if the
// connection was not redirected, and on Windows.
func (c *Conn) Origin() Origin { return c.origin }
