package waybill

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/waybill-net/waybill/internal/datagram"
)

// See looks at a datagram of a flow, and at its TOS, before it goes on, and says
// whether it does, and whether it wants to see more. The datagram is its own
// until it returns. Who holds one back sends it later with [PacketRelay.Send].
type See func(datagram []byte, tos uint8) (forward, more bool)

// PacketRelay passes the datagrams of a flow on between the application and a
// socket that is connected to the destination. Boundaries and TOS stay as they
// are. The options may be set until Run is called.
//
// What nobody wants to see goes many at a time: the listener's goroutine, in
// AcceptConn, sends what the application says, and what finds no room in the
// socket's buffer is lost. While it is idle, a relay holds a
// socket, a goroutine with a stack of 4 KB, and 3 KB beside (TestIdleFlows): 67 MB
// for 10,000 flows.
type PacketRelay struct {
	// SeeSent and SeeReceived see what the application sends and receives, if
	// they are set, each in a goroutine of its own. Who answers in the place of
	// the destination writes to the PacketConn; who ends the flow closes it.
	SeeSent, SeeReceived See

	// Failed hears why a datagram was not sent, or what ICMP has told of an
	// earlier one: syscall.ECONNREFUSED if nobody listens at the destination.
	// The flow goes on, as a connected socket does: the destination may come
	// back. Run calls it.
	Failed func(error)

	conn     *PacketConn
	upstream *net.UDPConn
	socket   *datagram.Socket
	failures chan error  // of the listener's goroutine
	tell     func(error) // sendFailed, made once: it would be made for each datagram
}

// NewPacketRelay takes over both sides of a flow. On an error they are still
// the caller's.
func NewPacketRelay(c *PacketConn, upstream *net.UDPConn) (*PacketRelay, error) {
	socket, err := datagram.NewSocket(upstream, upstreamBuffer)
	if err != nil {
		return nil, err
	}
	carryRecords(socket, c, upstream)
	r := &PacketRelay{conn: c, upstream: upstream, socket: socket, failures: make(chan error, 1)}
	r.tell = r.sendFailed
	return r, nil
}

// Send sends one datagram to the destination, as one of the application.
func (r *PacketRelay) Send(b []byte, tos uint8) error {
	_, err := r.socket.WriteTOS(b, tos, netip.AddrPort{})
	return err
}

// Run relays until the flow ends, and closes both sides.
func (r *PacketRelay) Run() {
	var sent sync.WaitGroup
	defer sent.Wait()
	defer r.upstream.Close()
	defer r.conn.Close()
	if !r.conn.atEnd(r.wake) {
		return
	}
	if r.SeeSent == nil {
		r.passOn()
	} else {
		sent.Go(r.relaySent)
	}
	r.relayReceived()
}

// relaySent shows what the application says, until enough has been seen.
func (r *PacketRelay) relaySent() {
	d := direction{see: r.SeeSent, send: r.send}
	for d.see != nil {
		m, err := r.conn.wait()
		if err != nil {
			return
		}
		d.pass([]datagram.Message{m})
	}
	r.passOn()
}

// passOn sends what has come, and leaves to the listener what comes from now
// on.
func (r *PacketRelay) passOn() {
	for {
		m, ok := r.conn.nextOr(r)
		if !ok {
			return
		}
		r.send([]datagram.Message{m})
	}
}

// relayReceived relays what the destination says.
func (r *PacketRelay) relayReceived() {
	d := direction{see: r.SeeReceived, send: r.answer}
	receive := func(messages []datagram.Message) bool {
		d.pass(messages)
		return true
	}
	for {
		err := r.socket.Read(receive, r.failed)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		r.upstream.SetReadDeadline(time.Time{})
		select {
		case <-r.conn.done:
			return
		case err := <-r.failures:
			r.failed(err)
		default:
		}
	}
}

// wake makes Run look at what is new, by a deadline that has passed. To close
// the socket would be to wait for Run, which a See must not.
func (r *PacketRelay) wake() { r.upstream.SetReadDeadline(time.Unix(1, 0)) }

// send sends to the destination.
func (r *PacketRelay) send(messages []datagram.Message) {
	r.socket.Send(netip.AddrPort{}, messages, r.tell)
}

// sendFailed may run in the listener's goroutine, which nobody is to keep: Run
// tells of the error.
func (r *PacketRelay) sendFailed(err error) {
	select {
	case r.failures <- err:
		r.wake()
	default:
	}
}

// answer sends to the application. That it is gone is no error.
func (r *PacketRelay) answer(messages []datagram.Message) {
	r.conn.last.Store(time.Now().UnixNano())
	r.conn.listener.socket.Send(r.conn.peer, messages, func(error) {})
}

func (r *PacketRelay) failed(err error) {
	if r.Failed != nil {
		r.Failed(&net.OpError{Op: "relay", Net: "udp", Source: r.upstream.LocalAddr(), Addr: r.upstream.RemoteAddr(), Err: err})
	}
}

// direction is one way of a relay.
type direction struct {
	see  See // nil: all goes on unseen
	send func([]datagram.Message)
}

// pass sends what see lets through. What was seen goes one at a time.
func (d *direction) pass(messages []datagram.Message) {
	for i, m := range messages {
		if d.see == nil {
			d.send(messages[i:])
			return
		}
		for more := true; more; {
			var first datagram.Message
			first, m, more = m.Cut()
			if d.lets(first) {
				d.send([]datagram.Message{first})
			}
		}
	}
}

func (d *direction) lets(m datagram.Message) bool {
	if d.see == nil {
		return true
	}
	forward, more := d.see(m.Data, m.TOS)
	if !more {
		d.see = nil
	}
	return forward
}
