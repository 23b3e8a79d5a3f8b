package inspect

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/waybill-net/waybill"
	"github.com/waybill-net/waybill/internal/dns"
	"github.com/waybill-net/waybill/internal/quic"
)

// dnsTalk is what a program and a resolver say to each other in one flow of UDP
// or on one connection of TCP.
type dnsTalk struct {
	service *service
	who     source

	mu    sync.Mutex
	asked [openQuestions]question // a ring
	next  int
}

// openQuestions is how many are remembered until they are answered. Of one that
// is forgotten the addresses are not learnt.
const openQuestions = 64

// question is one that was passed on, and not answered yet.
type question struct {
	id   uint16
	name string // empty: none
}

// query looks at a message to the resolver. It is passed on, answered, or
// dropped.
func (t *dnsTalk) query(message []byte) (pass bool, answer []byte) {
	return t.judge(message, t.service.Rules.Inspect(message))
}

func (t *dnsTalk) judge(message []byte, found dns.Inspection) (pass bool, answer []byte) {
	switch found.Kind {
	case dns.Blocked:
		t.service.line(t.who, "DNS %s %s: blocked by %s", found.Type, clean(found.Name), found.Rule)
	case dns.Passed:
		t.remember(question{binary.BigEndian.Uint16(message), found.Name})
		t.service.line(t.who, "DNS %s %s", found.Type, clean(found.Name))
	default:
		t.service.line(t.who, "DNS: %s%s", found.Kind, fate(found))
	}
	return !found.Barred, found.Answer
}

// fate is what becomes of what is no question.
func fate(found dns.Inspection) string {
	switch {
	case !found.Barred:
		return ""
	case found.Answer == nil:
		return ": dropped"
	}
	return ": answered with FORMERR"
}

func (t *dnsTalk) remember(q question) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked[t.next] = q
	t.next = (t.next + 1) % len(t.asked)
}

// answered takes a question back, if it was asked.
func (t *dnsTalk) answered(q question) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.asked {
		if t.asked[i] == q {
			t.asked[i] = question{}
			return true
		}
	}
	return false
}

// response looks at a message of the resolver. What it teaches is told before
// the program can make use of it.
func (t *dnsTalk) response(message []byte) {
	found, ok := dns.Resolve(message)
	if ok && t.answered(question{binary.BigEndian.Uint16(message), found.Name}) {
		t.service.tell(found)
	}
}

// dnsPackets is DNS over UDP, unless a connection of QUIC is begun, which a
// server at this port may speak as well.
type dnsPackets struct {
	dnsTalk
	quic quicPackets
}

func (p *dnsPackets) ToServer(datagram []byte, tos uint8) (forward, more bool, answer []byte) {
	if quic.IsLong(datagram) {
		forward, _, answer = p.quic.ToServer(datagram, tos)
		return forward, true, answer
	}
	found := p.service.Rules.Inspect(datagram)
	if p.quic.isQUIC && found.Name == "" {
		return true, true, nil // of an established connection
	}
	forward, answer = p.judge(datagram, found)
	return forward, true, answer
}

func (p *dnsPackets) ToClient(datagram []byte, tos uint8) (forward, more bool) {
	p.quic.ToClient(datagram, tos)
	p.response(datagram)
	return true, true
}

func (p *dnsPackets) isDescribed() bool { return true }

// relayDNS is DNS over TCP: messages with their lengths before them.
func (s *service) relayDNS(ctx context.Context, c *waybill.Conn) {
	_, hops, err := waybill.QueryState(c)
	if err != nil && !errors.Is(err, waybill.ErrNotSupported) { // Windows tells its kernel alone
		return // the client has gone already
	}
	t := &dnsTalk{service: s, who: source{c.Origin(), c.OriginalDestination(), "", hops}}
	var d waybill.Dialer
	upstream, err := d.DialOriginal(ctx, c)
	if err != nil {
		s.line(t.who, "%v", err)
		return // the client's connection is reset
	}
	defer upstream.Close()
	upstream.SetLinger(0)
	stop := context.AfterFunc(ctx, func() { upstream.Close() })
	defer stop()

	client := &messageWriter{to: c.TCPConn}
	server := &messageWriter{to: upstream}
	errs := make(chan error, 2)
	go func() {
		errs <- eachMessage(upstream, func(message []byte) error {
			t.response(message)
			return client.write(message)
		}, c.TCPConn)
	}()
	go func() {
		errs <- eachMessage(c, func(message []byte) error {
			pass, answer := t.query(message)
			if answer != nil {
				return client.write(answer)
			}
			if !pass {
				return nil
			}
			return server.write(message)
		}, upstream)
	}()
	first := <-errs
	if first != nil {
		c.Close() // both ends are reset, and the other direction ends with them
		upstream.Close()
	}
	if second := <-errs; first == nil && second == nil {
		c.SetLinger(-1)
		upstream.SetLinger(-1)
	}
}

// eachMessage reads messages from one end until it has ended in order, which
// is passed on to the other.
func eachMessage(from io.Reader, do func([]byte) error, to *net.TCPConn) error {
	messages := dns.NewScanner(from)
	for messages.Scan() {
		if err := do(messages.Bytes()); err != nil {
			return err
		}
	}
	if err := messages.Err(); err != nil {
		return err
	}
	return to.CloseWrite()
}

// messageWriter writes messages whole: two may have something to say to the
// client.
type messageWriter struct {
	mu sync.Mutex
	to io.Writer
}

func (w *messageWriter) write(message []byte) error {
	framed := make([]byte, 0, 2+len(message))
	framed = binary.BigEndian.AppendUint16(framed, uint16(len(message)))
	framed = append(framed, message...)
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.to.Write(framed)
	return err
}
