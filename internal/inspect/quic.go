package inspect

import (
	"strings"
	"sync"

	"github.com/waybill-net/waybill/internal/proxy"
	"github.com/waybill-net/waybill/internal/quic"
)

// quicPackets reads the beginning of each connection of QUIC in one flow.
type quicPackets struct {
	service *service
	who     source
	send    proxy.Send

	mu     sync.Mutex
	flow   quic.Flow
	held   hold
	isQUIC bool
}

// ToServer looks for names for as long as there are some to block, and passes
// no part of a hello before it knows the name. Without, the first name is
// enough, or that there is none.
func (p *quicPackets) ToServer(datagram []byte, tos uint8) (forward, more bool, answer []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	blocks := p.service.Rules.Len() > 0
	c := p.flow.Read(datagram)
	if c == nil {
		return true, blocks, nil
	}
	p.isQUIC = true
	if c.Hello == nil && c.Err == nil {
		if blocks {
			p.held.add(c, datagram, tos)
		}
		return !blocks, true, nil
	}
	if !c.Said {
		c.Said = true
		p.service.line(p.who, "QUIC %s", p.describe(c))
	}
	forward, answer = p.judge(c)
	for _, d := range p.held.take(c) {
		if forward {
			p.send(d.data, d.tos)
		}
	}
	return forward, blocks, answer
}

// judge lets go on what it can not read, unless there are names to block: then
// it may be meant to get past them, for no client sends such.
func (p *quicPackets) judge(c *quic.Connection) (forward bool, answer []byte) {
	if c.Err != nil {
		c.Barred = p.service.Rules.Len() > 0
		return !c.Barred, nil
	}
	rule, blocked := p.service.Rules.Match(c.Hello.ServerName)
	if !blocked {
		return true, nil
	}
	c.Barred = true
	answer, err := c.Refuse(c.Hello.ServerName + " is blocked by " + rule)
	if err != nil {
		p.service.line(p.who, "QUIC: %v", err) // the client then hears nothing
	}
	return false, answer
}

// describe says what there is to know of a connection.
func (p *quicPackets) describe(c *quic.Connection) string {
	if c.Err != nil {
		return "that can not be read: " + c.Err.Error()
	}
	if rule, blocked := p.service.Rules.Match(c.Hello.ServerName); blocked {
		return clean(c.Hello.ServerName) + ": blocked by " + rule
	}
	return describeHello(c.Hello)
}

// ToClient looks for what a refusal has to know.
func (p *quicPackets) ToClient(datagram []byte, _ uint8) (forward, more bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flow.Reply(datagram)
	return true, p.service.Rules.Len() > 0
}

func (p *quicPackets) isDescribed() bool { return p.isQUIC }

// describeHello is the name and the protocols that the client offers: without
// those that are there to be ignored (RFC 8701).
func describeHello(h *quic.Hello) string {
	name := "without a name"
	if h.ServerName != "" {
		name = clean(h.ServerName)
	}
	var protocols []string
	for _, p := range h.ALPN {
		if len(p) != 2 || p[0] != p[1] || p[0]&0xf != 0xa {
			protocols = append(protocols, clean(p))
		}
	}
	if len(protocols) == 0 {
		return name
	}
	return name + " (" + strings.Join(protocols, ", ") + ")"
}
