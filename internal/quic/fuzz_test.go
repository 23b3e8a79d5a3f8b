package quic_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/waybill-net/waybill/internal/quic"
)

// FuzzSniffer: whatever a client sends, and whatever frames it can protect,
// there is an answer in the end, and it stays.
func FuzzSniffer(f *testing.F) {
	hello := sampleHello
	f.Add(sample(f, "rfc9001-a.2"), []byte{})
	f.Add(sample(f, "rfc9369-a.2"), []byte{1})
	f.Add([]byte("garbage"), crypto(hello, 0, len(hello)))
	f.Add([]byte{}, slices.Concat(crypto(hello, 90, len(hello)), []byte{1}, crypto(hello, 0, 100)))
	f.Add([]byte{0xd0, 0, 0, 0, 1, 1, 7, 0, 0}, []byte{2, 7, 0, 1, 1, 3, 3, 0x1c, 0, 6, 1, 'x'})
	f.Fuzz(func(t *testing.T, datagram, frames []byte) {
		if len(frames) > 65000 {
			return // no datagram is that long
		}
		var (
			s     quic.Sniffer
			ours  = sealed(frames)
			turns = [][]byte{datagram, ours}
			seen  int
		)
		for i := 0; ; i++ {
			d := turns[i%len(turns)]
			before := bytes.Clone(d)
			got, err := s.Add(d)
			if !bytes.Equal(d, before) {
				t.Fatal("datagram was changed")
			}
			if got != nil && err != nil {
				t.Fatalf("both %+v and %v", got, err)
			}
			if err == quic.ErrNotQUIC {
				if seen > 0 {
					t.Fatal("not QUIC, after some that was")
				}
				continue
			}
			if seen++; seen > 16 {
				t.Fatal("no answer after 16 datagrams")
			}
			if got != nil || err != nil {
				if again, errAgain := s.Add(ours); again != got || errAgain != err {
					t.Fatalf("%v, %v became %v, %v", got, err, again, errAgain)
				}
				return
			}
		}
	})
}
