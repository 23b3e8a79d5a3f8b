package waybill

import (
	"context"
	"errors"
	"net"
	"syscall"
)

// Dialer opens the connections that a proxy makes on behalf of those it
// accepted. The zero value is ready to use.
type Dialer struct {
	// Net has the timeouts, local address and the like. Its Control or
	// ControlContext function runs before the records are set.
	Net net.Dialer
}

// DialOriginal connects to the original destination of from and passes its
// records on. It fails with ErrNotRedirected if there is none.
func (d *Dialer) DialOriginal(ctx context.Context, from *Conn) (*net.TCPConn, error) {
	if !from.OriginalDestination().IsValid() {
		return nil, noDestination(from.Redirected(), "the client connected to the proxy's own address")
	}
	c, err := d.DialContext(ctx, from.Records(), "tcp", from.OriginalDestination().String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// DialOriginalPacket is DialOriginal for a flow of UDP.
//
// On Windows the socket is not connected: records go beside the first datagram
// that is sent, which [PacketRelay] does.
func (d *Dialer) DialOriginalPacket(ctx context.Context, from *PacketConn) (*net.UDPConn, error) {
	if !from.OriginalDestination().IsValid() {
		return nil, noDestination(from.Redirected(), "the client sent to the proxy's own address")
	}
	return d.dialPacket(ctx, from)
}

// noDestination says why there is none. On Windows a redirector need not tell
// it.
func noDestination(redirected bool, whyNot string) error {
	if redirected {
		whyNot = "its redirector tells it neither in the form of Microsoft's sample nor by SO_ORIGINAL_DST: see QueryContext"
	}
	return &OpError{Op: opDial, Err: errors.New("no original destination"), kind: ErrNotRedirected, hint: whyNot}
}

// DialContext connects to an address, the original destination or another,
// and passes records on. The context bounds the dial; it does not bind the
// connection. An error wraps what [net.Dialer] returned, and ErrTooManyHops
// if waybill refused the connection because of the records.
func (d *Dialer) DialContext(ctx context.Context, records Records, network, address string) (net.Conn, error) {
	nd := d.Net
	nd.Control, nd.ControlContext = nil, d.control(records)
	c, err := nd.DialContext(ctx, network, address)
	if err != nil {
		return nil, opError(opDial, err)
	}
	return c, nil
}

// control chains the caller's control function and ours. Control runs after
// socket() and before connect(): the only moment at which records can be set.
func (d *Dialer) control(records Records) func(context.Context, string, string, syscall.RawConn) error {
	return func(ctx context.Context, network, address string, c syscall.RawConn) error {
		if err := d.callerControl(ctx, network, address, c); err != nil {
			return err
		}
		return records.control(ctx, c)
	}
}

func (d *Dialer) callerControl(ctx context.Context, network, address string, c syscall.RawConn) error {
	switch {
	case d.Net.ControlContext != nil:
		return d.Net.ControlContext(ctx, network, address, c)
	case d.Net.Control != nil:
		return d.Net.Control(network, address, c)
	}
	return nil
}
