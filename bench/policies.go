//go:build linux

package main

import (
	"net/netip"

	"github.com/waybill-net/waybill/internal/policy"
)

// only selects one destination.
func only(to netip.AddrPort, provider string) policy.Filter {
	return policy.Filter{
		Provider:    provider,
		Destination: []netip.Prefix{netip.PrefixFrom(to.Addr(), 32)},
		Ports:       []policy.PortRange{policy.Port(to.Port())},
	}
}

// onePolicy has one provider, which listens on a port in the first cgroup, and
// one filter.
func (s *scene) onePolicy(to netip.AddrPort, port uint16) policy.Policy {
	return policy.Policy{
		Providers: []policy.Provider{{Name: providerName(0), Listen: local(port), Cgroup: s.provider(0)}},
		Filters:   []policy.Filter{only(to, providerName(0))},
	}
}

func (s *scene) smallPolicy() policy.Policy { return s.onePolicy(unserved, s.proxyPort) }

func (s *scene) forwardedPolicy() policy.Policy {
	return s.onePolicy(local(s.forwardedPort), s.proxyPorts[0])
}

// fullPolicy has as many providers and filters as there can be, none of which
// matches.
func fullPolicy() policy.Policy {
	var p policy.Policy
	for i := range policy.MaxProviders {
		p.Providers = append(p.Providers, policy.Provider{Name: providerName(i), Listen: local(uint16(100 + i))})
	}
	for i := range policy.MaxFilters {
		a := netip.AddrFrom4([4]byte{127, 255, byte(i >> 8), byte(i)})
		p.Filters = append(p.Filters, policy.Filter{
			Provider:    providerName(i % policy.MaxProviders),
			Destination: []netip.Prefix{netip.PrefixFrom(a, 32)},
		})
	}
	return p
}

// chainPolicy sends a flow through all proxies, one after the other.
func (s *scene) chainPolicy() policy.Policy {
	var p policy.Policy
	for i := range s.proxies {
		p.Providers = append(p.Providers, policy.Provider{
			Name: providerName(i), Listen: local(s.proxyPorts[i]), Cgroup: s.provider(i),
		})
		p.Filters = append(p.Filters, only(unserved, providerName(i)))
	}
	return p
}
