//go:build linux

package main

import (
	"math/rand/v2"
	"net/netip"
	"time"
)

// kind of a flow, by how long it takes.
type kind string

const (
	short kind = "short" // one round of little data
	bulk  kind = "bulk"  // one round of much
	long  kind = "long"  // many rounds, with time between them
)

// flow is what a client does with one connection.
type flow struct {
	ID     uint64
	Kind   kind
	Dst    netip.AddrPort
	End    ending // after the last round
	Rounds []round
}

type round struct {
	Pause      time.Duration // before it
	Size, Want uint32
}

const (
	bulkEvery = 250 // of the short ones, one is bulk
	maxShort  = 4 << 10
	maxBulk   = 2 << 20
	maxRounds = 60
	maxPause  = 500 * time.Millisecond
)

// drawFlow makes the flow of a number, always the same from one seed.
func drawFlow(seed, id uint64, k kind) flow {
	r := rand.New(rand.NewPCG(seed, id))
	f := flow{ID: id, Kind: k, End: ending(1 + r.IntN(3))}
	f.Dst = netip.AddrPortFrom(originAddrs[r.IntN(len(originAddrs))], originPorts[r.IntN(len(originPorts))])
	if k == short && r.IntN(bulkEvery) == 0 {
		f.Kind = bulk
	}
	switch f.Kind {
	case short:
		f.Rounds = []round{{0, drawSize(r, maxShort), drawSize(r, maxShort)}}
	case bulk:
		f.Rounds = []round{{0, drawSize(r, maxBulk), drawSize(r, maxBulk)}}
	case long:
		for range 2 + r.IntN(maxRounds-1) {
			pause := time.Duration(r.Int64N(int64(maxPause)))
			f.Rounds = append(f.Rounds, round{pause, drawSize(r, maxShort), drawSize(r, maxShort)})
		}
	}
	return f
}

// drawSize prefers small sizes: each power of two is as likely as the next.
func drawSize(r *rand.Rand, most int) uint32 {
	size := most
	for size > 1 && r.IntN(2) == 0 {
		size /= 2
	}
	return uint32(r.IntN(size + 1))
}
