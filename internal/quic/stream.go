package quic

import (
	"bytes"
	"fmt"
	"slices"
)

// stream puts the handshake together, whose parts come in any order. One that
// comes twice costs no more than its length.
type stream struct {
	data  []byte
	have  []bool // for each byte of data
	whole int    // bytes before the first gap
	end   int    // of the hello, once it has been read: what is behind it is not kept
}

// write refuses what differs from the same part before: who lets one of two
// hellos through must not have read the other.
func (s *stream) write(offset uint64, part []byte) error {
	if offset+uint64(len(part)) > maxCrypto {
		return fmt.Errorf("handshake has more than %d bytes", maxCrypto)
	}
	start := int(offset)
	if s.end > 0 {
		part = part[:min(len(part), max(s.end-start, 0))]
	}
	if more := start + len(part) - len(s.data); more > 0 {
		s.data = append(s.data, make([]byte, more)...)
		s.have = append(s.have, make([]bool, more)...)
	}
	for i, b := range part {
		if s.have[start+i] && s.data[start+i] != b {
			return fmt.Errorf("handshake has two values for byte %d", start+i)
		}
		s.data[start+i], s.have[start+i] = b, true
	}
	for s.whole < len(s.have) && s.have[s.whole] {
		s.whole++
	}
	return nil
}

// keep keeps the hello alone, for what is sent again to be compared with it.
func (s *stream) keep(hello []byte) {
	*s = stream{data: bytes.Clone(hello), have: slices.Repeat([]bool{true}, len(hello)), whole: len(hello), end: len(hello)}
}

// clientHello returns the first message, nil if parts are missing.
func (s *stream) clientHello() ([]byte, error) {
	const header, typeClientHello = 4, 1
	if s.whole < header {
		return nil, nil
	}
	if s.data[0] != typeClientHello {
		return nil, fmt.Errorf("handshake begins with a message of type %d, not with a ClientHello", s.data[0])
	}
	end := header + (int(s.data[1])<<16 | int(s.data[2])<<8 | int(s.data[3]))
	if end > maxCrypto {
		return nil, fmt.Errorf("ClientHello of %d bytes is longer than %d", end, maxCrypto)
	}
	if s.whole < end {
		return nil, nil
	}
	return s.data[:end], nil
}
