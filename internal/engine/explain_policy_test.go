//go:build linux

package engine_test

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/waybill-net/waybill/internal/policy"
)

const explainFilters = 200

var (
	explainDown    = []string{"d", "f"} // nobody listens: d is passed by, f blocks then
	explainUnaware = []string{"b"}      // sets no records
)

// randomPolicy has six providers of every kind, and filters with every
// condition.
func (w *explainWorld) randomPolicy() policy.Policy {
	var p policy.Policy
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		p.Providers = append(p.Providers, provider(w.env, name))
	}
	p.Providers[2].Shadow = true
	p.Providers[4].Listen6 = netip.AddrPort{}
	p.Providers[5].OnDown = policy.Block
	for i := range explainFilters {
		f := w.randomFilter()
		f.Name = fmt.Sprintf("filter%d", i)
		// The last one gets half as many: a refusal is the end.
		owner := p.Providers[w.rng.IntN(2*len(p.Providers)-1)/2]
		f.Provider = owner.Name
		// Its own processes are never redirected to it, and who wants that is told so.
		f.Cgroups = slices.DeleteFunc(f.Cgroups, func(dir string) bool { return dir == owner.Cgroup })
		p.Filters = append(p.Filters, f)
	}
	return p
}

// randomFilter asks more of the connections that it permits or blocks: most
// of them are to get somewhere.
func (w *explainWorld) randomFilter() policy.Filter {
	f := policy.Filter{Weight: int32(w.rng.IntN(5)), Ports: w.randomPorts()}
	rare, states := 4, []policy.State{policy.NotRedirected, policy.RedirectedByOther}
	if w.rng.IntN(4) == 0 {
		f.Action, rare = policy.Action(1+w.rng.IntN(2)), 2
		states = append(states, policy.RedirectedBySelf, policy.PreviouslyRedirectedBySelf)
	}
	if w.rng.IntN(3) > 0 {
		f.Destination = some(w, 1, explainPrefixes)
	}
	f.NotDestination = some(w, 3, explainPrefixes)
	f.Programs = some(w, rare, append(w.programs, "/nowhere"))
	f.OriginalPrograms = some(w, rare, w.programs)
	f.Users = some(w, rare, explainUsers)
	f.Cgroups = some(w, rare, w.dirs())
	f.OriginalCgroups = some(w, rare, w.dirs())
	f.States = some(w, 3, states)
	return f
}

var explainPrefixes = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.0.2.2/31"),
	netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("::ffff:192.0.2.2/128"), netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("127.0.0.9/32"), netip.MustParsePrefix("::1/128"),
	netip.MustParsePrefix("::/0"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2001:db8::2/128"),
}

// dirs has the cgroups of clients and of proxies, the one above all of them,
// and one that does not exist.
func (w *explainWorld) dirs() []string {
	dirs := []string{w.env.Scope, w.env.Scope + "/gone", w.env.Cgroup("a")}
	for _, name := range explainCgroups {
		dirs = append(dirs, w.env.Cgroup(name))
	}
	return dirs
}

func (w *explainWorld) randomPorts() []policy.PortRange {
	var ports []policy.PortRange
	for _, first := range some(w, 1, explainPorts) {
		ports = append(ports, policy.PortRange{First: first, Last: first + uint16(w.rng.IntN(2))})
	}
	return ports
}

// some draws one or two values, once in n times; else none.
func some[T any](w *explainWorld, n int, values []T) []T {
	if w.rng.IntN(n) > 0 {
		return nil
	}
	drawn := make([]T, 1+w.rng.IntN(2))
	for i := range drawn {
		drawn[i] = values[w.rng.IntN(len(values))]
	}
	return drawn
}
