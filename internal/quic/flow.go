package quic

import (
	"bytes"
	"errors"
	"slices"
	"time"
)

// Flow reads what a client sends to one server from one of its ports: it may
// begin several connections. The zero value is ready to use. It is not safe for
// concurrent use.
type Flow struct {
	connections []*Connection // the oldest first
	full        Connection    // stands for those for which there is no room
}

// Connection is one of a [Flow], from the client's first datagram to its
// hello.
type Connection struct {
	Hello *Hello // nil: not complete
	Err   error  // why none can be expected, or why it does not count; as of [Sniffer.Add]

	// Barred and Said are for the caller: [Flow.Read] finds the same Connection
	// for what the client sends of it once more. Read clears Said when there is
	// something else to say.
	Barred bool
	Said   bool

	begun   time.Time
	first   packet // of its first datagram, of which only the IDs are kept
	server  []byte // the ID that the server has chosen; nil: it has not answered
	sniffer Sniffer
}

const (
	// maxConnections are remembered: those that are begun, and the last of the
	// others.
	maxConnections = 32

	// maxBegun are of those whose hello is not complete. No client has so many,
	// and who forgot one of them would miss its hello.
	maxBegun = 16

	// longestHandshake is for how long a server waits for the rest of a hello, of
	// which it may have a part. A barred connection is not forgotten before.
	longestHandshake = 30 * time.Second
)

var errTooManyBegun = errors.New("client has begun too many connections at once")

// Read reads the next datagram, which it neither changes nor keeps. It returns
// the connection that the datagram begins or goes on to begin; nil if it is
// none of those that carry a hello: it belongs to an established connection, or
// is no QUIC of a known version.
func (f *Flow) Read(datagram []byte) *Connection {
	if len(datagram) == 0 || datagram[0]&longHeader == 0 {
		return nil
	}
	for p := range initials(datagram) {
		c := f.find(p)
		if c == nil && len(datagram) < minInitialDatagram {
			return nil
		}
		if c == nil {
			c = f.begin(p)
		}
		c.read(datagram)
		return c
	}
	return nil
}

func (c *Connection) read(datagram []byte) {
	switch {
	case c.Err != nil:
	case c.Hello == nil:
		c.Hello, c.Err = c.sniffer.Add(datagram)
	default:
		if c.Err = c.sniffer.again(datagram); c.Err != nil {
			c.Hello, c.Said = nil, false
		}
	}
}

// Reply reads a datagram of the server: with which ID it has answered. What it
// says after the beginning of a connection need not be read. A client that
// chooses no ID has one connection at a time, and after a Retry the same ID
// begins again: the newest is meant.
func (f *Flow) Reply(datagram []byte) {
	if len(datagram) == 0 || datagram[0]&longHeader == 0 {
		return
	}
	p, _, ok := cutPacket(datagram)
	if !ok {
		return
	}
	for _, c := range slices.Backward(f.connections) {
		if bytes.Equal(c.first.scid, p.dcid) {
			c.server = bytes.Clone(p.scid)
			return
		}
	}
}

// find looks for the connection that a packet belongs to. The client changes
// to the ID that the server chose when it hears from it, and keeps the keys.
func (f *Flow) find(p packet) *Connection {
	for _, c := range f.connections {
		if c.first.version.number == p.version.number && bytes.Equal(c.first.dcid, p.dcid) {
			return c
		}
	}
	for _, c := range f.connections {
		if _, ok := c.sniffer.current.open(p); ok {
			return c
		}
	}
	return nil
}

func (f *Flow) begin(p packet) *Connection {
	if f.begun() >= maxBegun || len(f.connections) >= maxConnections && !f.forget() {
		f.full.Err = errTooManyBegun
		return &f.full
	}
	first := packet{version: p.version, dcid: bytes.Clone(p.dcid), scid: bytes.Clone(p.scid)}
	c := &Connection{first: first, begun: time.Now()}
	f.connections = append(f.connections, c)
	return c
}

func (f *Flow) begun() (n int) {
	for _, c := range f.connections {
		if c.Hello == nil && c.Err == nil {
			n++
		}
	}
	return n
}

// forget makes room: first of what is done with, and may go on.
func (f *Flow) forget() bool {
	isDone := func(c *Connection) bool { return c.Hello != nil || c.Err != nil }
	i := slices.IndexFunc(f.connections, func(c *Connection) bool { return isDone(c) && !c.Barred })
	if i < 0 {
		i = slices.IndexFunc(f.connections, func(c *Connection) bool { return isDone(c) && time.Since(c.begun) > longestHandshake })
	}
	if i < 0 {
		return false
	}
	f.connections = slices.Delete(f.connections, i, i+1)
	return true
}
