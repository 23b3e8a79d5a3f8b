package quic

import (
	"bytes"
	"iter"
)

// version is what versions differ in, for a reader of Initial packets.
type version struct {
	number  uint32
	initial byte   // the packet type
	salt    string // of the Initial secret
	label   string // prefix of the labels of keys
}

func versionOf(number uint32) (v version, ok bool) {
	switch number {
	case Version1:
		return version{
			number: Version1, initial: 0, label: "quic ",
			salt: "\x38\x76\x2c\xf7\xf5\x59\x34\xb3\x4d\x17\x9a\xe6\xa4\xc8\x0c\xad\xcc\xbb\x7f\x0a",
		}, true
	case Version2:
		return version{
			number: Version2, initial: 1, label: "quicv2 ",
			salt: "\x0d\xed\xe3\xde\xf7\x00\xa6\xdb\x81\x93\x81\xbe\x6e\x26\x9d\xcb\xf9\xbd\x2e\xd9",
		}, true
	}
	return version{}, false
}

const (
	longHeader      = 0x80
	maxConnectionID = 20
)

// packet is one with a long header, still protected.
type packet struct {
	version version
	initial bool
	dcid    []byte
	scid    []byte
	bytes   []byte
	number  int // where in bytes the packet number begins
}

// cutPacket takes the first packet off a datagram. The fixed bit says nothing:
// a client may clear it (RFC 9287), and only who has the keys knows more.
func cutPacket(datagram []byte) (p packet, rest []byte, ok bool) {
	r := reader{rest: datagram}
	first := r.byte()
	v, known := versionOf(r.uint32())
	dcid := r.take(uint64(r.byte()))
	scid := r.take(uint64(r.byte()))
	if first&longHeader == 0 || !known || len(dcid) > maxConnectionID || len(scid) > maxConnectionID {
		return packet{}, nil, false
	}
	initial := first>>4&3 == v.initial
	if initial {
		r.take(r.varint()) // the token
	}
	length := r.varint() // only a Retry has none, which no client sends
	number := len(datagram) - len(r.rest)
	r.take(length)
	if r.short {
		return packet{}, nil, false
	}
	end := len(datagram) - len(r.rest)
	return packet{version: v, initial: initial, dcid: dcid, scid: scid, bytes: datagram[:end], number: number}, r.rest, true
}

// IsLong reports whether a datagram begins with a whole packet that has the long
// header of a known version. No question to a resolver does: where the version
// stands it would have 256 questions, or an operation that DNS does not have.
func IsLong(datagram []byte) bool {
	_, _, ok := cutPacket(datagram)
	return ok
}

// initials are the Initial packets of a datagram that a server looks at: those
// with the same ID and the same version as the first packet.
func initials(datagram []byte) iter.Seq[packet] {
	return func(yield func(packet) bool) {
		first, _, _ := cutPacket(datagram)
		for {
			p, rest, ok := cutPacket(datagram)
			if !ok || p.version.number != first.version.number || !bytes.Equal(p.dcid, first.dcid) {
				return
			}
			if p.initial && !yield(p) {
				return
			}
			datagram = rest
		}
	}
}
