package inspect

import (
	"bytes"

	"github.com/waybill-net/waybill/internal/quic"
)

// hold has the datagrams of connections whose hello is not complete: no part of
// one that will be blocked may reach the server. Of one connection there are
// less than 16, for then it is in error.
type hold struct {
	datagrams []held // in the order in which they came
	bytes     int
}

type held struct {
	of   *quic.Connection
	data []byte
	tos  uint8
}

// maxHeld bounds the bytes of a flow. Sixteen hellos of today's browsers are less
// than half of it. What comes beyond is lost, and sent again by the client.
const maxHeld = 64 << 10

func (h *hold) add(of *quic.Connection, data []byte, tos uint8) {
	if h.bytes+len(data) > maxHeld {
		return
	}
	h.bytes += len(data)
	h.datagrams = append(h.datagrams, held{of, bytes.Clone(data), tos})
}

// take takes out those of one connection.
func (h *hold) take(of *quic.Connection) (taken []held) {
	var others []held
	for _, d := range h.datagrams {
		if d.of != of {
			others = append(others, d)
			continue
		}
		taken = append(taken, d)
		h.bytes -= len(d.data)
	}
	h.datagrams = others
	return taken
}
