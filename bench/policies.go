//go:build linux

package main

import (
	"net/netip"

	"github.com/waybill-net/waybill/internal/policy"
)

// toUnserved selects the destination that is redirected.
func toUnserved(provider string) policy.Filter {
	return policy.Filter{
		Provider:    provider,
		Destination: []netip.Prefix{netip.PrefixFrom(unserved.Addr(), 32)},
		Ports:       []policy.PortRange{policy.Port(unserved.Port())},
	}
}

// smallPolicy has one provider and one filter.
func (s *scene) smallPolicy() policy.Policy {
	return policy.Policy{
		Providers: []policy.Provider{{Name: providerName(0), Listen: local(s.proxyPort), Cgroup: s.provider(0)}},
		Filters:   []policy.Filter{toUnserved(providerName(0))},
	}
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
		p.Filters = append(p.Filters, toUnserved(providerName(i)))
	}
	return p
}
