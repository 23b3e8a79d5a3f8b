package waybill

import (
	"net"
	"os"
	"slices"
	"time"

	"github.com/waybill-net/waybill/internal/datagram"
)

// What waits in a flow for its reader. More is dropped, as a full socket buffer
// does.
const (
	backlogDatagrams = 256
	backlogBytes     = 1 << 20
)

// backlog is what has come for a flow and was not read yet. An empty one takes
// no memory.
type backlog struct {
	messages  []datagram.Message
	datagrams int
	bytes     int
}

// add copies a message.
func (b *backlog) add(m datagram.Message) {
	if b.datagrams+m.Len() > backlogDatagrams || b.bytes+len(m.Data) > backlogBytes {
		return
	}
	m.Data = slices.Clone(m.Data)
	b.messages = append(b.messages, m)
	b.datagrams += m.Len()
	b.bytes += len(m.Data)
}

// next takes one datagram.
func (b *backlog) next() (m datagram.Message, ok bool) {
	if b.datagrams == 0 {
		return m, false
	}
	m, others, more := b.messages[0].Cut()
	b.datagrams--
	b.bytes -= len(m.Data)
	switch {
	case more:
		b.messages[0] = others
	case b.datagrams > 0:
		b.messages = b.messages[1:]
	default:
		b.messages = nil
	}
	return m, true
}

// deliver takes what has come for the flow. The listener calls it, and the
// messages are its own.
func (c *PacketConn) deliver(messages []datagram.Message, now time.Time) {
	c.last.Store(now.UnixNano())
	c.mu.Lock()
	relay := c.relay
	if relay == nil {
		for _, m := range messages {
			c.backlog.add(m)
		}
	}
	c.mu.Unlock()
	if relay != nil {
		relay.send(messages)
		return
	}
	c.wake()
}

// wake lets one reader look for datagrams.
func (c *PacketConn) wake() {
	select {
	case c.arrived <- struct{}{}:
	default:
	}
}

// wait returns the next datagram, which is the caller's.
func (c *PacketConn) wait() (datagram.Message, error) {
	for {
		if m, ok := c.next(); ok {
			return m, nil
		}
		select {
		case <-c.arrived:
		case <-c.done:
			return datagram.Message{}, c.opError("read", net.ErrClosed)
		case <-c.deadline.passed():
			return datagram.Message{}, c.opError("read", os.ErrDeadlineExceeded)
		}
	}
}

func (c *PacketConn) next() (datagram.Message, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, ok := c.backlog.next()
	if c.backlog.datagrams > 0 {
		c.wake() // who else reads
	}
	return m, ok
}

// end lets go of all who wait for the flow.
func (c *PacketConn) end() {
	c.mu.Lock()
	ended, onEnd := c.ended, c.onEnd
	c.ended = true
	c.mu.Unlock()
	if ended {
		return
	}
	close(c.done)
	if onEnd != nil {
		onEnd()
	}
}

// nextOr returns the next datagram, or if none waits makes a relay send those
// that come from now on.
func (c *PacketConn) nextOr(r *PacketRelay) (datagram.Message, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, ok := c.backlog.next()
	if !ok {
		c.relay = r
	}
	return m, ok
}

// atEnd has f called when the flow ends. False: it has ended.
func (c *PacketConn) atEnd(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onEnd = f
	return !c.ended
}
