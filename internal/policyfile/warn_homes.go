package policyfile

import (
	"slices"
	"strings"

	"github.com/waybill-net/waybill/internal/policy"
)

// warnFamilies finds connections that a provider wants and has no address for.
func (r *reader) warnFamilies(providers []*provider, redirects map[string][]scouted) {
	for _, p := range providers {
		for _, f := range redirects[p.Name] {
			missing := f.homeless(p)
			if len(missing) == 0 {
				continue
			}
			fate := map[policy.OnDown]string{policy.Bypass: "passed by", policy.Block: "refused"}[p.OnDown]
			r.warning(p.at("proxy"), homesFor(missing), "provider %q has no address for %s: such connections are %s, though filter %q wants them",
				p.Name, join(missing, home.String), fate, f.Name)
			break
		}
	}
}

// home is what an address of a proxy is for.
type home struct {
	protocol policy.Protocol
	is6      bool
}

func (h home) String() string {
	family := map[bool]string{false: "IPv4", true: "IPv6"}[h.is6]
	if h.protocol == policy.UDP {
		return "UDP over " + family
	}
	return family
}

// field is how the file gives a provider such an address.
func (h home) field() string {
	field := map[policy.Protocol]string{policy.TCP: "listen", policy.UDP: "udp"}[h.protocol]
	if h.is6 {
		return field + `6: "[::1]:7001"`
	}
	return field + `: "127.0.0.1:7001"`
}

// homeless is what the filter wants and the provider has no address for.
func (f scouted) homeless(p *provider) (missing []home) {
	first, last := f.addrs[0].first, f.addrs[len(f.addrs)-1].last
	for _, protocol := range f.WantedProtocols() {
		if first.Is4() && !p.Address(protocol, first).IsValid() {
			missing = append(missing, home{protocol, false})
		}
		if last.Is6() && !p.Address(protocol, last).IsValid() {
			missing = append(missing, home{protocol, true})
		}
	}
	return missing
}

// homesFor says what to do about it.
func homesFor(missing []home) string {
	less := "a narrower destination, or protocol,"
	switch other := func(h home) bool { return h.is6 != missing[0].is6 }; {
	case slices.ContainsFunc(missing, other):
	case missing[0].is6:
		less = `destination: "0.0.0.0/0"`
	default:
		less = `destination: "::/0"`
	}
	return "add " + join(missing, home.field) + ", or " + less + " to the filter"
}

func join(homes []home, say func(home) string) string {
	var all []string
	for _, h := range homes {
		all = append(all, say(h))
	}
	return strings.Join(all, ", ")
}
