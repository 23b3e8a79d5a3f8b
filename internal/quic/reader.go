package quic

import "encoding/binary"

// reader takes values off the front of bytes. Past their end, each is zero.
type reader struct {
	rest  []byte
	short bool // there was less than was asked for; rest is empty
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.rest, r.short = nil, true
		return nil
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// varint has its length in its first two bits (RFC 9000, section 16).
func (r *reader) varint() uint64 {
	first := r.byte()
	n := uint64(first & 0x3f)
	for _, b := range r.take(1<<(first>>6) - 1) {
		n = n<<8 | uint64(b)
	}
	if r.short {
		return 0
	}
	return n
}
