package quic_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/waybill-net/waybill/internal/quic"
)

// otherHello is sampleHello with a name of the same length.
var otherHello = bytes.Replace(sampleHello, []byte("example.com"), []byte("blocked.com"), 1)

// TestFlowAround: a client that shows one hello to who reads on the way and
// means another to the server is read, or is told to be in error.
func TestFlowAround(t *testing.T) {
	t.Parallel()
	var (
		end      = len(sampleHello)
		whole    = sealed(crypto(sampleHello, 0, end))
		other    = sealed(crypto(otherHello, 0, end))
		head     = sealed(crypto(otherHello, 0, 100))
		tail     = crypto(otherHello, 100, end)
		small    = sampleHeader.seal(tail)
		version2 = sample(t, "rfc9369-a.2") // has the same ID
		noFixed  = sampleHeader
	)
	noFixed.first &^= 0x40 // which servers drop, unless they have said that they do not
	for _, tt := range []struct {
		name      string
		datagrams [][]byte
		stopped   bool // what comes last is in error; if not, the name is read
	}{
		{"another hello with the same ID", [][]byte{whole, other}, true},
		{"a part of it", [][]byte{whole, head}, true},
		{"one that a server drops", [][]byte{noFixed.seal(slices.Concat(crypto(sampleHello, 0, end), make([]byte, 1200))), other}, true},
		{"one of a version that a server does not speak", [][]byte{version2, other}, false},
		{"of such a version in between", [][]byte{head, version2, sealed(tail)}, false},
		{"of such a version behind the first part", [][]byte{sealed(crypto(otherHello, 0, 50)), slices.Concat(sealed(crypto(otherHello, 50, 100)), version2), sealed(tail)}, false},
		{"the end of the hello in a small datagram", [][]byte{head, small}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var (
				f quic.Flow
				c *quic.Connection
			)
			for _, d := range tt.datagrams {
				c = f.Read(d)
			}
			switch {
			case c == nil:
				t.Error("not read")
			case tt.stopped && (c.Err == nil || c.Hello != nil):
				t.Errorf("got %+v, %v, want an error", c.Hello, c.Err)
			case !tt.stopped && (c.Hello == nil || c.Hello.ServerName != "blocked.com"):
				t.Errorf("got %+v, %v, want the name", c.Hello, c.Err)
			}
		})
	}
}
