package inspect

import (
	"strings"
	"sync"

	"github.com/waybill-net/waybill/internal/quic"
)

// quicPackets reads the beginning of each connection of QUIC in one flow.
type quicPackets struct {
	service *service
	who     source

	mu     sync.Mutex
	flow   quic.Flow
	isQUIC bool
	said   *quic.Connection // the last that there was a line about
}

// ToServer lets go on what it can not read, unless there are rules: then it may
// be meant to get past them, for no client sends such.
func (p *quicPackets) ToServer(datagram []byte) (forward bool, answer []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.flow.Read(datagram)
	if c == nil {
		return true, nil
	}
	p.isQUIC = true
	isNew := c != p.said && (c.Hello != nil || c.Err != nil)
	if isNew {
		p.said = c
	}
	switch {
	case c.Err != nil:
		if isNew {
			p.service.line(p.who, "QUIC: %v", c.Err)
		}
		return p.service.Rules.Len() == 0, nil
	case c.Hello == nil:
		return true, nil
	}
	name := c.Hello.ServerName
	rule, blocked := p.service.Rules.Match(name)
	switch {
	case blocked:
		c.Barred = true
		if isNew {
			p.service.line(p.who, "QUIC %s: blocked by %s", clean(name), rule)
		}
		answer, err := c.Refuse(name + " is blocked by " + rule)
		if err != nil {
			p.service.line(p.who, "QUIC: %v", err)
		}
		return false, answer
	case isNew:
		p.service.line(p.who, "QUIC %s", describeHello(c.Hello))
	}
	return true, nil
}

func (p *quicPackets) ToClient(datagram []byte) (forward bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flow.Reply(datagram)
	return true
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
