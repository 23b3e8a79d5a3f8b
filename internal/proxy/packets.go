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

	// Inspect chooses who looks at the datagrams of a flow; nil: nobody. What
	// ToServer held back it may send later, while it is asked about another
	// one: before that.
	Inspect func(c *waybill.PacketConn, send Send) PacketInspector

	// Report is told of each flow when its first datagram has been forwarded,
	// or could not be; and once more, without First, of the first error that
	// comes later, such as that nobody listens at the destination. The flow
	// goes on then.
	Report func(PacketEvent)

	// MaxFlows bounds the flows open at once; of more the datagrams are lost.
	// 0: no bound. Refused hears once a second how often that was.
	MaxFlows int
	Refused  func(n int)
}

// PacketInspector looks at each datagram of one flow before it is forwarded,
// for as long as it wants to see more: what nobody looks at is faster. Both of
// its methods may be called at once, each of them by one goroutine.
type PacketInspector interface {
	// ToServer decides about a datagram of the application. What it answers
	// goes to the application; nil is nothing.
	ToServer(datagram []byte, tos uint8) (forward, more bool, answer []byte)

	// ToClient decides about one of the other side.
	ToClient(datagram []byte, tos uint8) (forward, more bool)
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
	flows := newLimit(p.MaxFlows, p.Refused)
	defer flows.close()
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
		if !flows.take() {
			c.Close()
			continue
		}
		open.Go(func() {
			defer flows.give()
			p.handle(ctx, c)
		})
	}
}

func (p *Packets) handle(ctx context.Context, c *waybill.PacketConn) {
	defer c.Close()
	e := PacketEvent{Conn: c}
	var (
		toServer, toClient waybill.See
		held               outlet
	)
	if p.Inspect != nil {
		e.Inspector = p.Inspect(c, held.send)
	}
	if e.Inspector != nil {
		toServer, toClient = answering(e.Inspector, c), e.Inspector.ToClient
	}
	relay, toServer := p.begin(ctx, e, toServer, &held)
	if relay == nil {
		return
	}
	relay.SeeSent, relay.SeeReceived = toServer, toClient
	told := false
	relay.Failed = func(err error) {
		if !told {
			p.report(PacketEvent{Conn: c, Inspector: e.Inspector, Err: err})
		}
		told = true
	}
	relay.Run()
}

// answering asks the inspector about what the application sends.
func answering(i PacketInspector, c *waybill.PacketConn) waybill.See {
	return func(datagram []byte, tos uint8) (forward, more bool) {
		forward, more, answer := i.ToServer(datagram, tos)
		if answer != nil {
			c.Write(answer) // that is lost if it can not be sent, as any datagram
		}
		return forward, more
	}
}

// begin forwards the first datagram that is to be, and reports it. It returns
// nil if the flow goes no further, and see as long as that wants to see more.
func (p *Packets) begin(ctx context.Context, e PacketEvent, see waybill.See, held *outlet) (*waybill.PacketRelay, waybill.See) {
	first, tos, see, err := readFirstDatagram(e.Conn, see)
	if errors.Is(err, net.ErrClosed) {
		return nil, nil // nothing of it was to be forwarded
	}
	e.First, e.Err = first, err
	var relay *waybill.PacketRelay
	if err == nil {
		relay = p.forward(ctx, &e, tos, held)
	}
	p.report(e)
	return relay, see
}

// readFirstDatagram reads until a datagram is to be forwarded.
func readFirstDatagram(c *waybill.PacketConn, see waybill.See) ([]byte, uint8, waybill.See, error) {
	for {
		datagram, tos, err := c.ReadDatagram()
		if err != nil || see == nil {
			return datagram, tos, see, err
		}
		forward, more := see(datagram, tos)
		if !more {
			see = nil
		}
		if forward {
			return datagram, tos, see, nil
		}
	}
}

// forward takes a flow to the point where relaying can begin and fills in the
// event. It returns nil if the flow goes no further. That a datagram could not
// be sent is no reason: another one may be.
func (p *Packets) forward(ctx context.Context, e *PacketEvent, tos uint8, held *outlet) *waybill.PacketRelay {
	upstream, err := p.Dialer.DialOriginalPacket(ctx, e.Conn)
	if err != nil {
		e.Err = err
		return nil
	}
	relay, err := waybill.NewPacketRelay(e.Conn, upstream)
	if err != nil {
		e.Err = err
		upstream.Close()
		return nil
	}
	held.open(relay)
	e.Err = relay.Send(e.First, tos)
	return relay
}

func (p *Packets) report(e PacketEvent) {
	if p.Report != nil {
		p.Report(e)
	}
}
