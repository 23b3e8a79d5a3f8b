//go:build linux

package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net/netip"
)

// A flow is a connection on which the client asks one or more times and the
// origin answers. Both send messages: a header, data, and a checksum of both.
type message struct {
	ID      uint64 // of the flow
	Round   uint32
	End     ending
	Verdict verdict
	Addr    netip.AddrPort // what the client dialled, or where that arrived
	Size    uint32         // of the data that follows
	Want    uint32         // of the data to answer with
}

// ending says who ends the connection after a round.
type ending uint8

const (
	goesOn     ending = iota
	byClient          // closes when it has the answer
	byOrigin          // closes when it has answered
	halfClosed        // the client shuts its side down before it has the answer
)

// verdict is what the origin found in a request.
type verdict uint8

const (
	fine verdict = iota
	wrongDestination
	duplicate
)

const (
	magic       = 0x57425331
	headerSize  = 48
	trailerSize = 4
	maxData     = 16 << 20
	atOnce      = 32 << 10 // what is sent in one write
)

var (
	errCorrupt = errors.New("the data is not what was sent")
	checksums  = crc32.MakeTable(crc32.Castagnoli)
	pattern    = randomBytes(4 * atOnce) // data is cut out of it
)

func randomBytes(n int) []byte {
	r := rand.NewChaCha8([32]byte{})
	b := make([]byte, n)
	r.Read(b)
	return b
}

func (m *message) appendHeader(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, magic)
	b = binary.BigEndian.AppendUint64(b, m.ID)
	b = binary.BigEndian.AppendUint32(b, m.Round)
	b = append(b, byte(m.End), byte(m.Verdict))
	b = binary.BigEndian.AppendUint16(b, m.Addr.Port())
	addr := m.Addr.Addr().As16()
	b = append(b, addr[:]...)
	b = binary.BigEndian.AppendUint32(b, m.Size)
	b = binary.BigEndian.AppendUint32(b, m.Want)
	return append(b, 0, 0, 0, 0)
}

func parseHeader(b []byte) (m message, err error) {
	if got := binary.BigEndian.Uint32(b); got != magic {
		return m, fmt.Errorf("%w: it begins with %08x", errCorrupt, got)
	}
	m.ID, m.Round = binary.BigEndian.Uint64(b[4:]), binary.BigEndian.Uint32(b[12:])
	m.End, m.Verdict = ending(b[16]), verdict(b[17])
	m.Addr = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[20:36])).Unmap(), binary.BigEndian.Uint16(b[18:]))
	m.Size, m.Want = binary.BigEndian.Uint32(b[36:]), binary.BigEndian.Uint32(b[40:])
	if m.Size > maxData || m.Want > maxData {
		return m, fmt.Errorf("%w: a size of %d", errCorrupt, max(m.Size, m.Want))
	}
	return m, nil
}

// dataOf is the piece of a message's data that begins at from; both ends could
// compute it, but the checksum is enough.
func (m *message) dataOf(from, size int) []byte {
	start := (int(m.ID%atOnce) + from) % atOnce
	return pattern[start : start+size]
}

// send writes a message. buf is there to be used again.
func send(w io.Writer, m message, buf []byte) ([]byte, error) {
	buf = m.appendHeader(buf[:0])
	var sum uint32
	for from := 0; ; {
		n := min(int(m.Size)-from, atOnce)
		buf = append(buf, m.dataOf(from, n)...)
		sum = crc32.Update(sum, checksums, buf)
		if from += n; from == int(m.Size) {
			buf = binary.BigEndian.AppendUint32(buf, sum)
			_, err := w.Write(buf)
			return buf, err
		}
		if _, err := w.Write(buf); err != nil {
			return buf, err
		}
		buf = buf[:0]
	}
}

// receive reads a message and verifies it. io.EOF means that there is none.
func receive(r *bufio.Reader) (message, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return message{}, err
	}
	m, err := parseHeader(header[:])
	if err != nil {
		return m, err
	}
	sum := crc32.Checksum(header[:], checksums)
	for left := int(m.Size); left > 0; {
		piece, err := r.Peek(min(left, r.Size()))
		if err != nil {
			return m, unexpected(err)
		}
		sum = crc32.Update(sum, checksums, piece)
		r.Discard(len(piece))
		left -= len(piece)
	}
	var trailer [trailerSize]byte
	if _, err := io.ReadFull(r, trailer[:]); err != nil {
		return m, unexpected(err)
	}
	if binary.BigEndian.Uint32(trailer[:]) != sum {
		return m, fmt.Errorf("%w: the checksum of %d bytes is wrong", errCorrupt, m.Size)
	}
	return m, nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
