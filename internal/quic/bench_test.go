package quic_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/waybill-net/waybill/internal/quic"
)

// BenchmarkAdd is the cost of one datagram: of the common one, and of those
// that are made to cost much.
func BenchmarkAdd(b *testing.B) {
	const largest = 65000
	var singles []byte
	for len(singles) < largest {
		at := 8 + rand.IntN(60000)
		singles = append(singles, 6, 0x80, 0, byte(at>>8), byte(at), 1, 0)
	}
	unreadable := sampleHeader.seal(nil)
	unreadable[len(unreadable)-1]++
	for _, bb := range []struct {
		name     string
		datagram []byte
	}{
		{"hello", sample(b, "rfc9001-a.2")},
		{"single-bytes", sealed(singles)},
		{"unreadable-packets", bytes.Repeat(unreadable, largest/len(unreadable))},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(bb.datagram)))
			for b.Loop() {
				var s quic.Sniffer
				if _, err := s.Add(bb.datagram); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
