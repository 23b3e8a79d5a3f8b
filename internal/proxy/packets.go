package proxy

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/waybill-net/waybill"
)

// Packets is a proxy of UDP: it relays every flow to where it was going. The
// zero value is ready to use.
type Packets struct {
	// Dialer opens the sockets to the destinations. Where records come from
	// and go to is not its business.
	Dialer waybill.Dialer

	// Report is told of each flow when its first datagram has been forwarded,
	// or could not be.
	Report func(PacketEvent)
}

// PacketEvent is what became of a flow.
type PacketEvent struct {
	Conn  *waybill.PacketConn
	First []byte // the first datagram, until Report returns
	Err   error
}

// Serve relays the flows of l until ctx ends, and closes it.
func (p *Packets) Serve(ctx context.Context, l *waybill.PacketListener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var open sync.WaitGroup
	defer open.Wait()
	for {
		c, err := l.AcceptConn()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			continue // of one flow: its next datagram tries again
		}
		open.Go(func() { p.handle(ctx, c) })
	}
}

func (p *Packets) handle(ctx context.Context, c *waybill.PacketConn) {
	defer c.Close()
	e := PacketEvent{Conn: c}
	buf := make([]byte, maxDatagram)
	upstream := p.forward(ctx, &e, buf)
	if p.Report != nil {
		p.Report(e)
	}
	if upstream == nil {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		relayDatagrams(c, upstream, make([]byte, maxDatagram))
		c.Close()
	})
	relayDatagrams(upstream, c, buf)
	upstream.Close()
	back.Wait()
}

// forward takes a flow to the point where relaying can begin and fills in the
// event. It returns nil if the flow goes no further.
func (p *Packets) forward(ctx context.Context, e *PacketEvent, buf []byte) *net.UDPConn {
	n, err := e.Conn.Read(buf)
	if err != nil {
		e.Err = err
		return nil
	}
	e.First = buf[:n]
	upstream, err := p.Dialer.DialOriginalPacket(ctx, e.Conn)
	if err != nil {
		e.Err = err
		return nil
	}
	if _, err := upstream.Write(e.First); err != nil {
		e.Err = err
		upstream.Close()
		return nil
	}
	return upstream
}

const maxDatagram = 65535

// relayDatagrams copies one direction until one of the two ends. What can not
// be sent is lost, as on any way of a datagram.
func relayDatagrams(dst, src net.Conn, buf []byte) {
	for {
		n, err := src.Read(buf)
		if err != nil {
			return
		}
		if _, err := dst.Write(buf[:n]); errors.Is(err, net.ErrClosed) {
			return
		}
	}
}
