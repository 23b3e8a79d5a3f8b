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

	// Inspect chooses who looks at the datagrams of a flow; nil: nobody.
	Inspect func(*waybill.PacketConn) PacketInspector

	// Report is told of each flow when its first datagram has been forwarded,
	// or could not be.
	Report func(PacketEvent)
}

// PacketInspector looks at each datagram of one flow before it is forwarded.
// Both of its methods may be called at once, each of them by one goroutine.
type PacketInspector interface {
	// ToServer decides about a datagram of the application. What it answers
	// goes to the application; nil is nothing.
	ToServer(datagram []byte) (forward bool, answer []byte)

	// ToClient decides about one of the other side.
	ToClient(datagram []byte) (forward bool)
}

// PacketEvent is what became of a flow.
type PacketEvent struct {
	Conn      *waybill.PacketConn
	Inspector PacketInspector // nil: none
	First     []byte          // the first datagram that was forwarded, until Report returns
	Err       error
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
	var toServer, toClient func([]byte) bool
	if p.Inspect != nil {
		e.Inspector = p.Inspect(c)
	}
	if e.Inspector != nil {
		toServer, toClient = answering(e.Inspector, c), e.Inspector.ToClient
	}
	buf := make([]byte, maxDatagram)
	upstream := p.forward(ctx, &e, buf, toServer)
	if p.Report != nil && (e.First != nil || e.Err != nil) {
		p.Report(e)
	}
	if upstream == nil {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		relayDatagrams(c, upstream, make([]byte, maxDatagram), toClient)
		c.Close()
	})
	relayDatagrams(upstream, c, buf, toServer)
	upstream.Close()
	back.Wait()
}

// answering asks the inspector about what the application sends.
func answering(i PacketInspector, c *waybill.PacketConn) func([]byte) bool {
	return func(datagram []byte) bool {
		forward, answer := i.ToServer(datagram)
		if answer != nil {
			c.Write(answer) // that is lost if it can not be sent, as any datagram
		}
		return forward
	}
}

// forward takes a flow to the point where relaying can begin, which is the
// first datagram that is to be forwarded, and fills in the event. It returns nil
// if the flow goes no further.
func (p *Packets) forward(ctx context.Context, e *PacketEvent, buf []byte, see func([]byte) bool) *net.UDPConn {
	first, err := readForwarded(e.Conn, buf, see)
	if errors.Is(err, net.ErrClosed) {
		return nil // nothing of it was
	}
	if err != nil {
		e.Err = err
		return nil
	}
	e.First = first
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

// readForwarded reads until a datagram is to be forwarded.
func readForwarded(c net.Conn, buf []byte, see func([]byte) bool) ([]byte, error) {
	for {
		n, err := c.Read(buf)
		if err != nil || see == nil || see(buf[:n]) {
			return buf[:n], err
		}
	}
}

const maxDatagram = 65535

// relayDatagrams copies one direction until one of the two ends, but for what
// see, if there is one, holds back. What can not be sent is lost, as on any way of a
// datagram.
func relayDatagrams(dst, src net.Conn, buf []byte, see func([]byte) bool) {
	for {
		n, err := src.Read(buf)
		if err != nil {
			return
		}
		if see != nil && !see(buf[:n]) {
			continue
		}
		if _, err := dst.Write(buf[:n]); errors.Is(err, net.ErrClosed) {
			return
		}
	}
}
