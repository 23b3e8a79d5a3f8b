package policy

import (
	"fmt"
	"net/netip"
	"slices"
)

// State of a connection for one provider, as in include/waybill.h.
type State int

const (
	NotRedirected State = iota
	RedirectedBySelf
	RedirectedByOther
	PreviouslyRedirectedBySelf
)

func (s State) String() string {
	names := [...]string{"not-redirected", "redirected-by-self", "redirected-by-other", "previously-redirected-by-self"}
	if s < 0 || int(s) >= len(names) {
		return fmt.Sprintf("State(%d)", int(s))
	}
	return names[s]
}

// MayRedirect reports whether a provider may redirect a connection in this state.
func (s State) MayRedirect() bool { return s == NotRedirected || s == RedirectedByOther }

// Hop is one redirect of a flow, as far as the decision depends on it.
type Hop struct {
	Handle  uint64
	Weight  int32
	Implied bool // nobody stamped it: counts for every provider of this weight or more as well
}

// StateFor returns the state of a connection with these hops, oldest first,
// for a provider.
func StateFor(handle uint64, weight int32, hops []Hop) State {
	if len(hops) == 0 {
		return NotRedirected
	}
	if hops[len(hops)-1].Handle == handle {
		return RedirectedBySelf
	}
	if slices.ContainsFunc(hops, func(h Hop) bool {
		return h.Handle == handle || h.Implied && weight >= h.Weight
	}) {
		return PreviouslyRedirectedBySelf
	}
	return RedirectedByOther
}

// Process is who connects, or who did at the start of the chain.
type Process struct {
	Program FileID
	UID     uint32
	Cgroups []uint64 // ids of its cgroup and of all above it
}

func (p *Process) in(cgroups []CgroupID) bool {
	return slices.ContainsFunc(cgroups, func(c CgroupID) bool { return slices.Contains(p.Cgroups, c.ID) })
}

// Query is what the decision knows of a connection.
type Query struct {
	Dst     netip.AddrPort
	Process Process
	Origin  Process // without hops: the same as Process
	Hops    []Hop
	Self    int    // index of the provider whose process connects; -1: none. Counts only without hops
	Down    uint64 // bit i: provider i can not be reached
}

// Verdict of a [Decision].
type Verdict int

const (
	Pass     Verdict = iota // no provider wants the connection
	Redirect                // Provider gets it, because of Filter
	Refuse                  // Provider wants it, is down, and blocks
	Loop                    // Provider wants it, but it has MaxHops hops
	Forbid                  // Filter of Provider blocks it
)

// Decision is the answer to a [Query]. The masks have a bit for each provider
// by its index, and tell why those before Provider did not get it.
type Decision struct {
	Verdict  Verdict
	Provider int // indices into the table; 0 with Pass
	Filter   int
	State    State  // for Provider
	Bypassed uint64 // wanted the connection and are down
	Shadowed uint64 // would have had, or have blocked, the connection: they are in shadow mode
	Excluded uint64 // have a filter that matches but for the state
}

// Decide does in Go what wb_decide in bpf/policy.h does in the kernel, for
// the filters that redirect.
func (t *Table) Decide(q Query) Decision {
	q.Dst = normal(q.Dst)
	if t.isProxy(q.Dst) {
		return Decision{}
	}
	var d Decision
	for i := range t.Providers {
		filter, ok := t.first(&d, &q, i, t.Providers[i].Redirects)
		if ok && t.choose(&d, &q, i, filter) {
			return d
		}
	}
	return d
}

// choose reports whether provider i, whose filter matched, ends the walk.
func (t *Table) choose(d *Decision, q *Query, i, filter int) bool {
	p := &t.Providers[i]
	switch down := q.Down&(1<<i) != 0; {
	case p.Shadow:
		d.Shadowed |= 1 << i
		return false
	case down && p.OnDown == Bypass:
		d.Bypassed |= 1 << i
		return false
	case down:
		d.Verdict = Refuse
	case len(q.Hops) >= MaxHops:
		d.Verdict = Loop
	default:
		d.Verdict = Redirect
	}
	d.Provider, d.Filter, d.State = i, filter, t.state(*q, i)
	return true
}

// Authorize is the same for the filters that permit and block. It is asked
// for the process that connects and, if there are hops, a second time with
// the one at the start of the chain as Process.
func (t *Table) Authorize(q Query) Decision {
	q.Dst = normal(q.Dst)
	var d Decision
	for i := range t.Providers {
		filter, ok := t.first(&d, &q, i, t.Providers[i].Authorizes)
		if !ok || t.Filters[filter].Action == ActionPermit {
			continue
		}
		if t.Providers[i].Shadow {
			d.Shadowed |= 1 << i
			continue
		}
		d.Verdict, d.Provider, d.Filter, d.State = Forbid, i, filter, t.state(q, i)
		return d
	}
	return d
}

// first returns the first filter in span, of provider i, that matches.
func (t *Table) first(d *Decision, q *Query, i int, span Span) (int, bool) {
	state := t.state(*q, i)
	for j := span.First; j < span.End; j++ {
		f := &t.Filters[j]
		if !f.matches(q) {
			continue
		}
		if f.stateMask&(1<<state) != 0 {
			return j, true
		}
		d.Excluded |= 1 << i
	}
	return 0, false
}

func (t *Table) state(q Query, i int) State {
	p := &t.Providers[i]
	if len(q.Hops) > 0 || q.Self < 0 {
		return StateFor(p.Handle, p.Weight, q.Hops)
	}
	switch {
	case i == q.Self:
		return RedirectedBySelf
	case t.TrackingOff:
		return NotRedirected
	case p.Weight >= t.Providers[q.Self].Weight:
		return PreviouslyRedirectedBySelf
	}
	return RedirectedByOther
}

// matches tests every condition but the state.
func (f *TableFilter) matches(q *Query) bool {
	return f.matchesAddr(q.Dst.Addr()) &&
		matchesAny(f.Ports, func(r PortRange) bool { return q.Dst.Port() >= r.First && q.Dst.Port() <= r.Last }) &&
		(len(f.Programs) == 0 || slices.Contains(f.programs, q.Process.Program)) &&
		(len(f.OriginalPrograms) == 0 || slices.Contains(f.originals, q.Origin.Program)) &&
		(len(f.Users) == 0 || slices.Contains(f.uids, q.Process.UID)) &&
		(len(f.Cgroups) == 0 || q.Process.in(f.cgroups)) &&
		(len(f.OriginalCgroups) == 0 || q.Origin.in(f.origCgroups))
}

func (f *TableFilter) matchesAddr(a netip.Addr) bool {
	local := f.Action == ActionRedirect && isLocal(netip.PrefixFrom(a, a.BitLen()))
	contains := func(p netip.Prefix) bool { return p.Contains(a) }
	if slices.ContainsFunc(f.exceptions, contains) {
		return false
	}
	if local {
		return slices.ContainsFunc(f.destinations, func(p netip.Prefix) bool { return isLocal(p) && p.Contains(a) })
	}
	return matchesAny(f.destinations, contains)
}

// matchesAny is true without any value: a field that is not given.
func matchesAny[T any](values []T, matches func(T) bool) bool {
	return len(values) == 0 || slices.ContainsFunc(values, matches)
}

// isProxy reports whether dst is a provider's proxy: who dials it gets it.
func (t *Table) isProxy(dst netip.AddrPort) bool {
	return slices.ContainsFunc(t.Providers, func(p TableProvider) bool {
		return p.Listen == dst || p.Listen6 == dst
	})
}

// normal gives an address as the filters see it: never IPv4-mapped, and
// loopback for the unspecified address, as connect() takes it.
func normal(a netip.AddrPort) netip.AddrPort {
	switch addr := a.Addr().Unmap(); addr {
	case netip.IPv4Unspecified():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.Port())
	case netip.IPv6Unspecified():
		return netip.AddrPortFrom(netip.IPv6Loopback(), a.Port())
	default:
		return netip.AddrPortFrom(addr, a.Port())
	}
}
