package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/waybill-net/waybill/internal/domain"
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
	Protocol Protocol
	Dst      netip.AddrPort
	Names    []string // that led to the address of Dst
	Process  Process
	Origin   Process // without hops: the same as Process
	Hops     []Hop
	Self     int    // index of the provider whose process connects; -1: none. Counts only without hops
	Down     uint64 // bit i: provider i can not be reached
}

// Verdict of a [Decision].
type Verdict int

const (
	Pass     Verdict = iota // no provider wants the connection
	Redirect                // Provider gets it, because of Filter
	Refuse                  // Provider wants it, is down, and blocks
	Loop                    // Provider wants it, but it has MaxHops hops
	Forbid                  // Filter of Provider blocks it
	DropQUIC                // it is UDP, and Provider would get TCP by Filter, which drops QUIC
)

// String is the word that events have for it.
func (v Verdict) String() string {
	names := [...]string{"passed", "redirected", "refused", "looped", "forbidden", "quic-dropped"}
	if v < 0 || int(v) >= len(names) {
		return fmt.Sprintf("Verdict(%d)", int(v))
	}
	return names[v]
}

// Decision is the answer to a [Query]. The masks have a bit for each provider
// by its index, and tell why those before Provider did not get it.
type Decision struct {
	Verdict  Verdict
	Provider int // indices into the table; 0 with Pass
	Filter   int
	State    State  // for Provider
	Bypassed uint64 // wanted the connection and are down
	Shadowed uint64 // would have had, or have blocked, the connection: they are in shadow mode
	Excluded uint64 // have filters that match but for the state, and none that matches
}

// Layer is one of the two kinds of filters, which do not see each other.
type Layer string

const (
	LayerAuthorize Layer = "authorize" // filters that permit and block
	LayerRedirect  Layer = "redirect"
)

func (p *TableProvider) filters(l Layer) Span {
	if l == LayerAuthorize {
		return p.Authorizes
	}
	return p.Redirects
}

// Decide does in Go what wb_decide in bpf/policy.h does in the kernel, for
// the filters that redirect.
func (t *Table) Decide(q Query) Decision { return t.walk(q, LayerRedirect, func(reply) {}) }

// Authorize is the same for the filters that permit and block. It is asked
// for the process that connects and, if there are hops, a second time with
// the one at the start of the chain as Process.
func (t *Table) Authorize(q Query) Decision { return t.walk(q, LayerAuthorize, func(reply) {}) }

// supposed is the way that TCP would go, for a query about UDP, up to the first
// filter that drops QUIC. If there is one, UDP has to stay away: DropQUIC. As
// wb_drops_quic, it takes the proxies on the way for such that set no records,
// and knows nothing of their processes. down are the providers that can not be
// reached by TCP.
func (t *Table) supposed(q Query, down uint64, decide func(Query) Decision) Decision {
	q.Protocol, q.Down = TCP, down
	for range MaxProviders {
		switch d := decide(q); {
		case d.Verdict == Pass:
			return Decision{}
		case t.Filters[d.Filter].DropQUIC:
			d.Verdict = DropQUIC
			return d
		case d.Verdict != Redirect:
			return Decision{}
		default:
			q.Self, q.Hops, q.Process = d.Provider, nil, Process{UID: noUser}
		}
	}
	return Decision{}
}

// reply is what one provider says to a connection, in one layer.
type reply struct {
	provider int
	state    State
	effect   Effect
	filter   int // that matches; -1: none
	excluded int // the first that matches but for the state; -1: none
}

// walk asks the providers in order until one has the last word. hear is told
// what each of them says.
func (t *Table) walk(q Query, l Layer, hear func(reply)) Decision {
	q.Dst = normal(q.Dst)
	var d Decision
	if l == LayerRedirect && t.proxyAt(q.Protocol, q.Dst) >= 0 {
		return d
	}
	for i := range t.Providers {
		r := t.ask(&q, i, t.Providers[i].filters(l))
		hear(r)
		if d.add(r) {
			break
		}
	}
	return d
}

// ask looks for the first filter in span, of provider i, that matches.
func (t *Table) ask(q *Query, i int, span Span) reply {
	r := reply{provider: i, state: t.state(*q, i), effect: Unmatched, filter: -1, excluded: -1}
	for j := span.First; j < span.End; j++ {
		f := &t.Filters[j]
		if f.mismatch(q) != fits {
			continue
		}
		if f.stateMask&(1<<r.state) != 0 {
			r.filter, r.effect = j, t.effect(q, i, f.Action)
			return r
		}
		if r.excluded < 0 {
			r.excluded, r.effect = j, Excluded
		}
	}
	return r
}

// effect of a filter of provider i that matches.
func (t *Table) effect(q *Query, i int, action Action) Effect {
	p := &t.Providers[i]
	switch down := q.Down&(1<<i) != 0; {
	case action == ActionPermit:
		return Permits
	case p.Shadow:
		return Shadowed
	case action == ActionBlock:
		return Blocks
	case down && p.OnDown == Bypass:
		return Bypassed
	case down:
		return Refuses
	case len(q.Hops) >= MaxHops:
		return Loops
	default:
		return Redirects
	}
}

// add reports whether the reply is the last word.
func (d *Decision) add(r reply) bool {
	bit := uint64(1) << r.provider
	switch r.effect {
	case Excluded:
		d.Excluded |= bit
	case Bypassed:
		d.Bypassed |= bit
	case Shadowed:
		d.Shadowed |= bit
	}
	verdict, last := r.effect.verdict()
	if last {
		d.Verdict, d.Provider, d.Filter, d.State = verdict, r.provider, r.filter, r.state
	}
	return last
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

// fits is the mismatch of a filter with a connection that meets all its
// conditions.
const fits = Dimensions

// mismatch returns the first condition that the connection does not meet. The
// state is none of them.
func (f *TableFilter) mismatch(q *Query) Dimension {
	switch {
	case !f.matchesAddr(q.Dst.Addr()):
		return DimDestination
	case !slices.Contains(f.WantedProtocols(), cmp.Or(q.Protocol, TCP)):
		return DimPort
	case !matchesAny(f.Ports, func(r PortRange) bool { return q.Dst.Port() >= r.First && q.Dst.Port() <= r.Last }):
		return DimPort
	case len(f.Programs) > 0 && !slices.Contains(f.programs, q.Process.Program):
		return DimProgram
	case len(f.OriginalPrograms) > 0 && !slices.Contains(f.originals, q.Origin.Program):
		return DimOriginalProgram
	case len(f.Users) > 0 && !slices.Contains(f.uids, q.Process.UID):
		return DimUser
	case len(f.Cgroups) > 0 && !q.Process.in(f.cgroups):
		return DimCgroup
	case len(f.OriginalCgroups) > 0 && !q.Origin.in(f.origCgroups):
		return DimOriginalCgroup
	case len(f.Domains) > 0 && !f.matchesDomain(q.Names):
		return DimDomain
	}
	return fits
}

func (f *TableFilter) matchesDomain(names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		for pattern := range domain.Patterns(name) {
			if slices.Contains(f.Domains, pattern) {
				return true
			}
		}
		return false
	})
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

// proxyAt returns the provider whose proxy's own address dst is; -1: none. Who
// dials it gets it.
func (t *Table) proxyAt(protocol Protocol, dst netip.AddrPort) int {
	return slices.IndexFunc(t.Providers, func(p TableProvider) bool { return p.Address(protocol, dst.Addr()) == dst })
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
