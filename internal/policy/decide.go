package policy

import (
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

// Query is what the decision knows of a connection.
type Query struct {
	Dst  netip.AddrPort
	Hops []Hop
	Self int    // index of the provider whose process connects; -1: none. Counts only without hops
	Down uint64 // bit i: provider i can not be reached
}

// Verdict of a [Decision].
type Verdict int

const (
	Pass     Verdict = iota // no provider wants the connection
	Redirect                // Provider gets it, because of Filter
	Refuse                  // Provider wants it, is down, and blocks
	Loop                    // Provider wants it, but it has MaxHops hops
)

// Decision is the answer to a [Query].
type Decision struct {
	Verdict  Verdict
	Provider int // indices into the table; 0 with Pass
	Filter   int
	Bypassed int // providers that wanted the connection and are down
}

// Decide does in Go what wb_decide in bpf/policy.h does in the kernel.
func (t *Table) Decide(q Query) Decision {
	dst := resolveAny(netip.AddrPortFrom(q.Dst.Addr().Unmap(), q.Dst.Port()))
	d := t.walk(q, dst)
	if t.isProxy(dst) {
		return Decision{}
	}
	if d.Verdict == Pass {
		return Decision{Bypassed: d.Bypassed}
	}
	return d
}

func (t *Table) walk(q Query, dst netip.AddrPort) Decision {
	var d Decision
	for i := range t.Providers {
		p := &t.Providers[i]
		if !t.state(q, i).MayRedirect() {
			continue
		}
		filter, ok := t.match(p, dst)
		if !ok {
			continue
		}
		d.Provider, d.Filter = i, filter
		switch {
		case q.Down&(1<<i) != 0 && p.OnDown == Block:
			d.Verdict = Refuse
		case q.Down&(1<<i) != 0:
			d.Bypassed++
			continue
		case len(q.Hops) >= MaxHops:
			d.Verdict = Loop
		default:
			d.Verdict = Redirect
		}
		return d
	}
	return d
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

// match returns the first filter of p that matches dst.
func (t *Table) match(p *TableProvider, dst netip.AddrPort) (int, bool) {
	local := isLocal(netip.PrefixFrom(dst.Addr(), dst.Addr().BitLen()))
	for i := p.FirstFilter; i < p.FirstFilter+p.NumFilters; i++ {
		f := &t.Filters[i]
		if local && !f.Local {
			continue
		}
		if dst.Port() >= f.Ports.First && dst.Port() <= f.Ports.Last && f.Prefix.Contains(dst.Addr()) {
			return i, true
		}
	}
	return 0, false
}

// isProxy reports whether dst is a provider's proxy: who dials it gets it.
func (t *Table) isProxy(dst netip.AddrPort) bool {
	return slices.ContainsFunc(t.Providers, func(p TableProvider) bool {
		return p.Listen == dst || p.Listen6 == dst
	})
}

// resolveAny gives loopback for the unspecified address, as connect() does.
func resolveAny(a netip.AddrPort) netip.AddrPort {
	switch {
	case a.Addr() == netip.IPv4Unspecified():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.Port())
	case a.Addr() == netip.IPv6Unspecified():
		return netip.AddrPortFrom(netip.IPv6Loopback(), a.Port())
	}
	return a
}
