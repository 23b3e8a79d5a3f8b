// Package datagram moves datagrams of UDP many at a time, with their TOS, and
// keeps the boundaries between them.
package datagram

import "net/netip"

// maxLength is the longest datagram that UDP carries.
const maxLength = 65535

// Message is a datagram, or several that the kernel hands over as one.
type Message struct {
	Peer netip.AddrPort // who sent it; not valid on a connected socket
	Data []byte

	// Segment is 0 if Data is one datagram. Otherwise Data is datagrams of so
	// many bytes each, of which the last may be shorter.
	Segment int

	TOS uint8 // of IPv6, the traffic class: DSCP and ECN

	// What Windows says of the flow, beside its first datagram.
	Records, Context []byte
}

// Len is the number of datagrams.
func (m Message) Len() int {
	if m.Segment == 0 {
		return 1
	}
	return (len(m.Data) + m.Segment - 1) / m.Segment
}

// Cut returns the first datagram and the others; more is false if there are
// none.
func (m Message) Cut() (first, others Message, more bool) {
	if m.Segment == 0 || len(m.Data) <= m.Segment {
		m.Segment = 0
		return m, Message{}, false
	}
	first, others = m, m
	first.Data, first.Segment = m.Data[:m.Segment:m.Segment], 0
	others.Data = m.Data[m.Segment:]
	return first, others, true
}
