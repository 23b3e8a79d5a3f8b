package quic

import (
	"bytes"
	"errors"
	"slices"
)

// Flow reads what a client sends to one server from one of its ports: it may
// begin several connections. The zero value is ready to use. It is not safe for
// concurrent use.
type Flow struct {
	connections []*Connection // the oldest first
}

// Connection is one of a [Flow], from the client's first datagram to its
// hello.
type Connection struct {
	Hello *Hello // nil: not complete
	Err   error  // why none can be expected, as of [Sniffer.Add]

	// Barred is for the caller: [Flow.Read] finds the same Connection for what
	// the client sends of it once more.
	Barred bool

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
		if c == nil {
			c = f.begin(p)
		}
		if c.Err == nil {
			c.Hello, c.Err = c.sniffer.Add(datagram)
		}
		return c
	}
	return nil
}

// Reply reads a datagram of the server: with which ID it has answered. What it
// says after the beginning of a connection need not be read.
func (f *Flow) Reply(datagram []byte) {
	if len(datagram) == 0 || datagram[0]&longHeader == 0 {
		return
	}
	p, _, ok := cutPacket(datagram)
	if !ok {
		return
	}
	for _, c := range f.connections {
		if bytes.Equal(c.first.scid, p.dcid) {
			c.server = bytes.Clone(p.scid)
		}
	}
}

// find looks for the connection that a packet belongs to. The client changes
// to the ID that the server chose when it hears from it, and keeps the keys.
func (f *Flow) find(p packet) *Connection {
	for _, c := range f.connections {
		if bytes.Equal(c.first.dcid, p.dcid) {
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
	c := &Connection{first: packet{version: p.version, dcid: bytes.Clone(p.dcid), scid: bytes.Clone(p.scid)}}
	if f.begun() >= maxBegun {
		c.Err = errTooManyBegun
		return c
	}
	if len(f.connections) >= maxConnections {
		f.forget()
	}
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
func (f *Flow) forget() {
	i := slices.IndexFunc(f.connections, func(c *Connection) bool { return !c.Barred && (c.Hello != nil || c.Err != nil) })
	if i < 0 {
		i = slices.IndexFunc(f.connections, func(c *Connection) bool { return c.Hello != nil || c.Err != nil })
	}
	f.connections = slices.Delete(f.connections, i, i+1) // maxBegun leaves one
}
