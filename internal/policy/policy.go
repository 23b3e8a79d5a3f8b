// Package policy is the model of what waybill does with connections: which
// providers there are, in which order, and which connections each one wants.
// It is pure: it knows nothing of the kernel.
//
// [Policy] is what a person declares. [Compile] checks it and makes the
// [Table] that the kernel programs read. [Table.Decide] is the Go twin of the
// decision in bpf/policy.h.
package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
)

// Limits of the kernel programs, as in bpf/abi.h.
const (
	MaxProviders = 64
	MaxFilters   = 1024 // after each filter is multiplied out, see [Compile]
	MaxHops      = 8
	MaxContext   = 1024 // bytes
)

// Policy is a whole desired state. The zero value redirects nothing.
type Policy struct {
	Providers []Provider
	Filters   []Filter

	// TrackingOff forgets the records, so that each provider exempts only its
	// own processes. That is how proxies live without waybill; it exists to
	// show the loops that follow.
	TrackingOff bool
}

// OnDown says what becomes of a connection whose proxy does not listen.
type OnDown int

const (
	Bypass OnDown = iota // go on as if the provider were not there
	Block                // refuse the connection with EACCES
)

// Provider is a party that redirects connections to its proxy.
type Provider struct {
	Name   string
	Weight int32 // the heaviest sees a connection first; equal weights keep the policy's order

	Listen  netip.AddrPort // the proxy's address for IPv4; zero: IPv4 counts as down
	Listen6 netip.AddrPort // and for IPv6

	// Cgroup is the directory, in the cgroup v2 file system, of the cgroup
	// that holds the proxy's processes and nothing else.
	Cgroup string

	OnDown OnDown
}

// Filter selects connections for a provider.
type Filter struct {
	Name     string
	Provider string
	Weight   int32 // inside the provider; it decides whose context is attached

	// Destination lists prefixes; empty: every address that leaves the
	// machine. Loopback and link-local addresses match only a prefix inside
	// that space.
	Destination []netip.Prefix
	Ports       []PortRange // empty: all

	Context []byte // for the provider's proxy alone; at most MaxContext bytes
}

// PortRange is inclusive.
type PortRange struct{ First, Last uint16 }

// Port is the range of one port.
func Port(p uint16) PortRange { return PortRange{p, p} }

// Handle returns the identity behind "self" of the provider with this name.
// It is the same after a restart and on every host, so that records outlive a
// daemon.
func Handle(name string) uint64 {
	sum := sha256.Sum256([]byte(name))
	return binary.LittleEndian.Uint64(sum[:])
}

// Table is a compiled policy. Providers stand in order, the heaviest first;
// the filters of each lie together.
type Table struct {
	Providers   []TableProvider
	Filters     []TableFilter
	TrackingOff bool
}

// TableProvider is a [Provider] with its place among the filters.
type TableProvider struct {
	Provider
	Handle      uint64
	FirstFilter int
	NumFilters  int
}

// TableFilter is one prefix and one range of ports of a [Filter].
type TableFilter struct {
	Prefix  netip.Prefix // masked, never IPv4-mapped
	Ports   PortRange
	Local   bool // the prefix lies in loopback or link-local space
	Context []byte
}

// Compile checks a policy and makes its table. A filter with m prefixes and n
// ranges of ports becomes m × n entries of the table.
func Compile(p Policy) (*Table, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	providers := slices.Clone(p.Providers)
	slices.SortStableFunc(providers, func(a, b Provider) int { return cmp.Compare(b.Weight, a.Weight) })
	filters := slices.Clone(p.Filters)
	slices.SortStableFunc(filters, func(a, b Filter) int { return cmp.Compare(b.Weight, a.Weight) })

	t := &Table{TrackingOff: p.TrackingOff}
	for _, provider := range providers {
		first := len(t.Filters)
		for _, f := range filters {
			if f.Provider == provider.Name {
				t.Filters = append(t.Filters, f.entries()...)
			}
		}
		t.Providers = append(t.Providers, TableProvider{
			Provider:    provider,
			Handle:      Handle(provider.Name),
			FirstFilter: first,
			NumFilters:  len(t.Filters) - first,
		})
	}
	if n := len(t.Filters); n > MaxFilters {
		return nil, fmt.Errorf("compile policy: %d filter entries (each prefix times each range of ports), at most %d", n, MaxFilters)
	}
	return t, nil
}

// entries multiplies a filter out.
func (f Filter) entries() []TableFilter {
	prefixes, ports := f.Destination, f.Ports
	if len(prefixes) == 0 {
		prefixes = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
	}
	if len(ports) == 0 {
		ports = []PortRange{{0, 65535}}
	}
	var entries []TableFilter
	for _, prefix := range prefixes {
		prefix = unmap(prefix).Masked()
		for _, r := range ports {
			entries = append(entries, TableFilter{Prefix: prefix, Ports: r, Local: isLocal(prefix), Context: f.Context})
		}
	}
	return entries
}

// unmap turns a prefix of IPv4-mapped addresses into one of IPv4 addresses:
// the kernel programs see ::ffff:192.0.2.1 as 192.0.2.1.
func unmap(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

var localSpaces = []netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("::1/128"),
	netip.MustParsePrefix("fe80::/10"),
}

// isLocal reports whether all of prefix is loopback or IPv6 link-local.
func isLocal(prefix netip.Prefix) bool {
	return slices.ContainsFunc(localSpaces, func(s netip.Prefix) bool {
		return prefix.Bits() >= s.Bits() && s.Contains(prefix.Addr())
	})
}

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

func (p Policy) check() error {
	if n := len(p.Providers); n > MaxProviders {
		return fmt.Errorf("check policy: %d providers, at most %d", n, MaxProviders)
	}
	names := make(map[string]bool)
	listens := make(map[netip.AddrPort]string)
	for _, provider := range p.Providers {
		if err := provider.check(); err != nil {
			return fmt.Errorf("check provider %q: %w", provider.Name, err)
		}
		if names[provider.Name] {
			return fmt.Errorf("check provider %q: name used twice", provider.Name)
		}
		names[provider.Name] = true
		for _, a := range []netip.AddrPort{provider.Listen, provider.Listen6} {
			if other, taken := listens[a]; taken && a.IsValid() {
				return fmt.Errorf("check provider %q: proxy address %s is already that of provider %q", provider.Name, a, other)
			}
			listens[a] = provider.Name
		}
	}
	for i, f := range p.Filters {
		if err := f.check(names); err != nil {
			return fmt.Errorf("check filter %d %q: %w", i+1, f.Name, err)
		}
	}
	return nil
}

func (p Provider) check() error {
	switch {
	case !validName.MatchString(p.Name):
		return fmt.Errorf("name must be 1 to 63 of a-z, 0-9, '.', '_', '-', and begin with a letter or digit")
	case !p.Listen.IsValid() && !p.Listen6.IsValid():
		return fmt.Errorf("no proxy address: give Listen, Listen6, or both")
	case p.Listen.IsValid() && !p.Listen.Addr().Is4():
		return fmt.Errorf("proxy address %s is not IPv4; give it as Listen6", p.Listen)
	case p.Listen6.IsValid() && (!p.Listen6.Addr().Is6() || p.Listen6.Addr().Is4In6()):
		return fmt.Errorf("proxy address %s is not IPv6; give it as Listen", p.Listen6)
	case p.OnDown != Bypass && p.OnDown != Block:
		return fmt.Errorf("unknown on-down policy %d", p.OnDown)
	}
	for _, a := range []netip.AddrPort{p.Listen, p.Listen6} {
		if a.IsValid() && (a.Port() == 0 || a.Addr().IsUnspecified() || a.Addr().IsMulticast()) {
			return fmt.Errorf("proxy address %s is not one to connect to", a)
		}
		if a.IsValid() && a.Addr().Zone() != "" {
			return fmt.Errorf("proxy address %s has a zone; connections can not be redirected to a zone", a)
		}
	}
	return nil
}

func (f Filter) check(providers map[string]bool) error {
	if !providers[f.Provider] {
		return fmt.Errorf("no provider %q in this policy", f.Provider)
	}
	if n := len(f.Context); n > MaxContext {
		return fmt.Errorf("context of %d bytes, at most %d", n, MaxContext)
	}
	for _, prefix := range f.Destination {
		if !prefix.IsValid() {
			return fmt.Errorf("destination prefix %s is not valid", prefix)
		}
	}
	for _, r := range f.Ports {
		if r.First > r.Last {
			return fmt.Errorf("ports %d-%d: the first is above the last", r.First, r.Last)
		}
	}
	return nil
}
