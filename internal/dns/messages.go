package dns

import (
	"bufio"
	"encoding/binary"
	"io"
)

const (
	prefix     = 2 // bytes of length before each message
	maxMessage = 1<<16 - 1
)

// NewScanner finds the messages in a stream of DNS over TCP. Each token is one,
// without its length, and is valid until the next Scan. A stream that ends
// inside a message is an [io.ErrUnexpectedEOF]. No more than one message of
// the greatest length, 65,535 bytes, is held.
func NewScanner(stream io.Reader) *bufio.Scanner {
	s := bufio.NewScanner(stream)
	s.Buffer(nil, prefix+maxMessage)
	s.Split(splitMessage)
	return s
}

func splitMessage(data []byte, atEOF bool) (advance int, message []byte, err error) {
	if len(data) >= prefix {
		if end := prefix + int(binary.BigEndian.Uint16(data)); len(data) >= end {
			return end, data[prefix:end], nil
		}
	}
	if atEOF && len(data) > 0 {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return 0, nil, nil
}
