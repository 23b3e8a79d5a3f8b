//go:build linux

package main

import (
	"net/netip"
	"path/filepath"
	"strconv"

	"github.com/waybill-net/waybill/internal/policy"
)

// kind is a way in which the filters of a policy differ. The last filter is
// the one that decides about the connections that are redirected.
type kind struct {
	name   string
	filter func(s *size, i int) policy.Filter // from 1 on
	stray  netip.AddrPort                     // without a route, and like the filters in all but one thing
	anyOf  func(i int) netip.AddrPort         // a destination of filter i; nil: all filters are of one destination
}

const (
	mixedProviders = 3 // beside that of the deciding filter
	mixedCgroups   = 16
	mixedPrograms  = 100
	mixedUsers     = 500
)

var kinds = []kind{
	{name: "destinations", filter: byDestination, anyOf: destinationOf, stray: stray},
	{name: "ports", filter: byPort, anyOf: portOf, stray: netip.AddrPortFrom(stray.Addr(), firstPort(1)+2)},
	{name: "programs", filter: byProgram, stray: stray},
	{name: "mixed", filter: byEverything, stray: stray},
	{name: "users", filter: byUser, stray: stray},
	{name: "scattered", filter: scattered, stray: stray},
	{name: "excluded", filter: excluded, stray: stray},
}

// policy has n filters of a kind. The first keeps every port wanted by some
// filter: the look-up of a port that none wants would end the decision at once.
func (s *size) policy(k kind) policy.Policy {
	p := policy.Policy{
		Providers: []policy.Provider{{Name: providerName(0), Listen: local(s.proxyPort), Cgroup: s.proxyDir()}},
		Filters:   []policy.Filter{{Destination: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}}},
	}
	for i := 1; i < policy.MaxProviders; i++ {
		listen := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 2}), uint16(i)) // where no connection goes
		p.Providers = append(p.Providers, policy.Provider{Name: providerName(i), Weight: int32(i), Listen: listen})
	}
	for i := 1; i < s.filters; i++ {
		p.Filters = append(p.Filters, k.filter(s, i))
	}
	for i := range p.Filters {
		if f := &p.Filters[i]; f.Provider == "" {
			f.Provider = providerName(0)
		}
	}
	return p
}

func (s *size) isLast(i int) bool { return i == s.filters-1 }

// decides makes a filter want one port alone.
func decides(f policy.Filter) policy.Filter {
	f.Ports = []policy.PortRange{policy.Port(unserved.Port())}
	return f
}

// byDestination: half of the addresses are ours, and can be redirected.
// The others, of which one in five is a /16, surround that of the stray.
func byDestination(_ *size, i int) policy.Filter {
	prefix := netip.PrefixFrom(destinationOf(i).Addr(), 32)
	switch {
	case i%10 == 4:
		prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(10 + i>>11), byte(i >> 3), 0, 0}), 16)
	case i%2 == 0:
		prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 32)
	}
	return policy.Filter{Destination: []netip.Prefix{prefix}}
}

// destinationOf: of the odd filters.
func destinationOf(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 19, byte(i >> 8), byte(i)}), unserved.Port())
}

// byPort leaves one port in three to nobody, and those from 32768 on, of which
// the kernel gives our listeners theirs.
func byPort(_ *size, i int) policy.Filter {
	first := firstPort(i)
	f := policy.Filter{Destination: everywhere, Ports: []policy.PortRange{policy.Port(first)}}
	if i%4 == 0 {
		f.Ports[0].Last++
	}
	return f
}

func firstPort(i int) uint16 { return uint16(3 * i) }

func portOf(i int) netip.AddrPort { return netip.AddrPortFrom(unserved.Addr(), firstPort(i)) }

func byProgram(s *size, i int) policy.Filter {
	f := policy.Filter{Destination: everywhere, Programs: []string{s.programs[i]}}
	if s.isLast(i) {
		f.Programs = []string{ownProgram}
		return decides(f)
	}
	return f
}

// byEverything: every filter asks for everything, for several providers.
func byEverything(s *size, i int) policy.Filter {
	if s.isLast(i) {
		return decides(policy.Filter{
			Destination: everywhere,
			Programs:    []string{ownProgram},
			Users:       []string{"0"},
			Cgroups:     []string{s.appDir()},
		})
	}
	return policy.Filter{
		Provider:    providerName(1 + i%mixedProviders),
		Destination: []netip.Prefix{netip.PrefixFrom(destinationOf(i).Addr(), 24).Masked(), nowhere},
		Ports:       []policy.PortRange{policy.Port(firstPort(i)), policy.Port(stray.Port())},
		Programs:    []string{s.programs[i%mixedPrograms], ownProgram},
		Users:       []string{otherUser(i % mixedUsers)},
		Cgroups:     []string{s.otherCgroup(i % mixedCgroups)},
	}
}

func byUser(s *size, i int) policy.Filter {
	f := policy.Filter{Destination: everywhere, Users: []string{otherUser(i)}}
	if s.isLast(i) {
		f.Users = []string{"0"}
		return decides(f)
	}
	return f
}

// scattered is the worst that one provider's filters can do to the summary of
// a set: half of them match in all but the user, the other half in all but
// the destination, so that every word of both sets must be looked at.
func scattered(s *size, i int) policy.Filter {
	if i%2 == 0 || s.isLast(i) {
		return byUser(s, i)
	}
	return policy.Filter{Destination: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}, Users: []string{"0"}}
}

// excluded adds the worst that many providers can do: all but the deciding
// one have a filter that matches, but not in this state, and the rest of the
// provider's filters must then be looked at, too.
func excluded(s *size, i int) policy.Filter {
	f := scattered(s, i)
	if s.isLast(i) {
		return f
	}
	owner := func(i int) int { return 1 + i*(policy.MaxProviders-1)/s.filters }
	if owner(i) != owner(i-1) {
		f = policy.Filter{Destination: everywhere, States: []policy.State{policy.RedirectedByOther}}
	}
	f.Provider = providerName(owner(i))
	return f
}

// otherUser has filter i for itself; the bench is user 0.
func otherUser(i int) string { return strconv.Itoa(100000 + i) }

func (s *size) appDir() string { return filepath.Join(s.dir, "app") }

func (s *size) proxyDir() string { return filepath.Join(s.dir, "proxy") }

func (s *size) otherCgroup(i int) string { return filepath.Join(s.dir, "other", strconv.Itoa(i)) }

// last is a destination of the last of n filters.
func (k kind) last(n int) netip.AddrPort {
	if k.anyOf == nil {
		return unserved
	}
	return k.anyOf(n - 1)
}

// all are destinations of all filters that redirect, or of every other one.
func (k kind) all(n int) []netip.AddrPort {
	var to []netip.AddrPort
	for i := 1; i < n; i += 2 {
		to = append(to, k.anyOf(i))
	}
	return to
}
