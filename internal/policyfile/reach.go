package policyfile

import (
	"cmp"
	"hash/maphash"
	"net/netip"
	"slices"
	"sort"

	"github.com/waybill-net/waybill/internal/policy"
)

// reach is the set of connections that a filter matches: one set for each
// field, and a connection has to be in all of them.
type reach struct {
	digest    uint64
	addrs     []span[netip.Addr]
	ports     []span[uint16]
	protocols uint8 // a bit for each
	states    uint8
	programs  []string // sorted; empty: every one
	originals []string
	users     []uint32
	cgroups   []string
	domains   []string
}

// span is a range with both of its ends. Lists of them are sorted, and a gap
// is between any two.
type span[T any] struct{ first, last T }

// scout computes the reach of many filters. Most of them name no address, and
// share one list.
type scout struct {
	seed     maphash.Seed
	anywhere map[policy.Action][]span[netip.Addr]
}

func newScout() scout {
	return scout{maphash.MakeSeed(), make(map[policy.Action][]span[netip.Addr])}
}

func (s scout) reach(f *filter) *reach {
	r := &reach{
		addrs:     s.addresses(f),
		ports:     portSpans(f.Ports),
		programs:  sorted(f.Programs),
		originals: sorted(f.OriginalPrograms),
		users:     sorted(f.uids),
		cgroups:   sorted(f.Cgroups),
		domains:   sorted(f.Domains),
	}
	for _, protocol := range f.WantedProtocols() {
		r.protocols |= protocolBit(protocol)
	}
	for state := policy.NotRedirected; state <= policy.PreviouslyRedirectedBySelf; state++ {
		if slices.Contains(f.States, state) || len(f.States) == 0 && (state.MayRedirect() || f.Action != policy.ActionRedirect) {
			r.states |= 1 << state
		}
	}
	r.digest = digest(s.seed, r.programs)<<40 | digest(s.seed, r.originals)<<20 | digest(s.seed, r.users)
	return r
}

func (s scout) addresses(f *filter) []span[netip.Addr] {
	if len(f.Destination)+len(f.NotDestination) > 0 {
		return addresses(&f.Filter)
	}
	if _, ok := s.anywhere[f.Action]; !ok {
		s.anywhere[f.Action] = addresses(&f.Filter)
	}
	return s.anywhere[f.Action]
}

func protocolBit(p policy.Protocol) uint8 {
	if p == policy.UDP {
		return 2
	}
	return 1
}

func sorted[T cmp.Ordered](values []T) []T {
	values = slices.Clone(values)
	slices.Sort(values)
	return values
}

func portSpans(ports []policy.PortRange) []span[uint16] {
	if len(ports) == 0 {
		return []span[uint16]{{0, 65535}}
	}
	ports = slices.Clone(ports)
	slices.SortFunc(ports, func(a, b policy.PortRange) int { return cmp.Compare(a.First, b.First) })
	spans := []span[uint16]{{ports[0].First, ports[0].Last}}
	for _, p := range ports[1:] {
		if last := &spans[len(spans)-1]; int(p.First) <= int(last.last)+1 {
			last.last = max(last.last, p.Last)
		} else {
			spans = append(spans, span[uint16]{p.First, p.Last})
		}
	}
	return spans
}

// digest has one bit of 20 set for each value, and all of them for every
// value. A set is not in another if its digest is not: that settles almost all
// of the millions of questions that ten thousand filters raise.
func digest[T comparable](seed maphash.Seed, values []T) uint64 {
	if len(values) == 0 {
		return 1<<20 - 1
	}
	var bits uint64
	for _, v := range values {
		bits |= 1 << (maphash.Comparable(seed, v) % 20)
	}
	return bits
}

// covers reports whether every connection in b is in a.
func (a *reach) covers(b *reach) bool {
	return b.digest&^a.digest == 0 &&
		b.protocols&^a.protocols == 0 &&
		b.states&^a.states == 0 &&
		covers(a.addrs, b.addrs, netip.Addr.Compare) &&
		covers(a.ports, b.ports, cmp.Compare[uint16]) &&
		includes(a.programs, b.programs) &&
		includes(a.originals, b.originals) &&
		includes(a.users, b.users) &&
		includes(a.domains, b.domains) &&
		includesCgroups(a.cgroups, b.cgroups)
}

// covers: gaps being real, each span of b lies in one of a or is not covered.
func covers[T any](a, b []span[T], compare func(x, y T) int) bool {
	for _, y := range b {
		after := sort.Search(len(a), func(i int) bool { return compare(a[i].first, y.first) > 0 })
		if after == 0 || compare(a[after-1].last, y.last) < 0 {
			return false
		}
	}
	return true
}

func includes[T cmp.Ordered](a, b []T) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == 0
	}
	for _, v := range b {
		if _, ok := slices.BinarySearch(a, v); !ok {
			return false
		}
	}
	return true
}

func includesCgroups(a, b []string) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == 0
	}
	for _, dir := range b {
		if !slices.ContainsFunc(a, func(above string) bool { return isBelow(dir, above) }) {
			return false
		}
	}
	return true
}

// meets reports whether a connection may be in both, as far as addresses,
// ports, programs and users tell.
func (a *reach) meets(b *reach) bool {
	return a.protocols&b.protocols != 0 &&
		meet(a.addrs, b.addrs, netip.Addr.Compare) &&
		meet(a.ports, b.ports, cmp.Compare[uint16]) &&
		share(a.programs, b.programs) &&
		share(a.users, b.users)
}

func meet[T any](a, b []span[T], compare func(x, y T) int) bool {
	for _, y := range b {
		i := sort.Search(len(a), func(i int) bool { return compare(a[i].last, y.first) >= 0 })
		if i < len(a) && compare(a[i].first, y.last) <= 0 {
			return true
		}
	}
	return false
}

func share[T cmp.Ordered](a, b []T) bool {
	return len(a) == 0 || len(b) == 0 || slices.ContainsFunc(b, func(v T) bool {
		_, ok := slices.BinarySearch(a, v)
		return ok
	})
}
