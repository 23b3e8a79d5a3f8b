package quic

import (
	"encoding/binary"
	"fmt"
)

// refusalNumber is that of a packet which no server has sent: one with a number
// that the client has seen it would take for a copy.
const refusalNumber = 1 << 20

// connectionRefused is an error of the transport (RFC 9000, section 20.1).
const connectionRefused = 2

// Refuse returns the datagram with which a server ends a connection at once,
// and says why: as anybody on the way could. The client gives up without
// waiting for an answer, and goes on to TCP if it has that choice. The reason is
// cut to what fits.
func (c *Connection) Refuse(reason string) ([]byte, error) {
	const longest = 63 // whose length has one byte
	k, err := newKeys(c.first.version, c.first.dcid, serverSide)
	if err != nil {
		return nil, fmt.Errorf("refuse connection %x: %w", c.first.dcid, err)
	}
	// The client ignores other IDs than that of the server's first packet, if it
	// has that. If not, the server has a choice, and why not take this one.
	id := c.server
	if id == nil {
		id = c.first.dcid
	}
	reason = reason[:min(len(reason), longest)]
	frames := []byte{frameConnectionClose, connectionRefused, 0, byte(len(reason))}
	frames = append(frames, reason...)

	const fixedBit = 0x40
	header := []byte{longHeader | fixedBit | c.first.version.initial<<4 | (longestNumber - 1)}
	header = binary.BigEndian.AppendUint32(header, c.first.version.number)
	header = append(header, byte(len(c.first.scid)))
	header = append(header, c.first.scid...)
	header = append(header, byte(len(id)))
	header = append(header, id...)
	header = append(header, 0) // no token
	header = appendVarint2(header, longestNumber+len(frames)+k.aead.Overhead())
	header = binary.BigEndian.AppendUint32(header, refusalNumber)
	return k.seal(header, frames, refusalNumber), nil
}

// appendVarint2 writes a number below 2^14 in two bytes.
func appendVarint2(b []byte, n int) []byte { return binary.BigEndian.AppendUint16(b, 1<<14|uint16(n)) }
