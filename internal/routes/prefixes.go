//go:build linux

package routes

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"github.com/waybill-net/waybill/internal/engine"
)

// unasked are not asked about: what is in them is no peer, or its way depends
// on more than its address. No shorter prefix answers for them.
var unasked = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("::/16"), // the unspecified address, loopback, and IPv4 in IPv6
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
}

// always are asked about, whatever routes there are: the defaults, and those
// that the kernel labels in its choice of an IPv6 source
// (net/ipv6/addrlabel.c, RFC 6724, section 2.1).
var always = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/0"),
	netip.MustParsePrefix("::/0"),
	netip.MustParsePrefix("2001::/32"),
	netip.MustParsePrefix("2001:10::/28"),
	netip.MustParsePrefix("2002::/16"),
	netip.MustParsePrefix("3ffe::/16"),
	netip.MustParsePrefix("fc00::/7"),
	netip.MustParsePrefix("fec0::/10"),
}

// set is a set of prefixes, none of them inside of unasked.
type set map[netip.Prefix]bool

func (s set) add(p netip.Prefix) {
	inside := func(u netip.Prefix) bool { return u.Bits() <= p.Bits() && u.Contains(p.Addr()) }
	if p = p.Masked(); p.IsValid() && !slices.ContainsFunc(unasked, inside) {
		s[p] = true
	}
}

// addNet adds what a route or rule names; nil: all, or nothing.
func (s set) addNet(n *net.IPNet) {
	if n == nil {
		return
	}
	if p, ok := netipx.FromStdIPNet(n); ok {
		s.add(p)
	}
}

// prefixes lists all that can matter to the choice of a source: two
// destinations that are in the same of them are treated alike.
func (f *Follower) prefixes() (set, error) {
	all := make(set)
	for _, p := range always {
		all.add(p)
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		if err := f.addRoutes(all, family); err != nil {
			return nil, err
		}
	}
	if err := f.addDivides(all); err != nil {
		return nil, err
	}
	if len(all)+len(unasked) > engine.MaxSources {
		return nil, fmt.Errorf("more than %d prefixes: programs see the addresses of their connections to proxies", engine.MaxSources)
	}
	return all, nil
}

// listed takes no offence at a list that changed meanwhile: there is a message
// about it, and it is read again. Nor at a kernel that has no IPv6, or no rules.
func listed(what string, err error) error {
	for _, harmless := range []error{netlink.ErrDumpInterrupted, unix.EAFNOSUPPORT, unix.EOPNOTSUPP} {
		if errors.Is(err, harmless) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", what, err)
	}
	return nil
}

// addRoutes adds what routes and rules name.
func (f *Follower) addRoutes(all set, family int) error {
	every := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
	err := f.asks.RouteListFilteredIter(family, every, netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
		all.addNet(r.Dst)
		return len(all) <= engine.MaxSources
	})
	if err := listed("routes", err); err != nil {
		return err
	}
	rules, err := f.asks.RuleList(family)
	if err := listed("rules", err); err != nil {
		return err
	}
	for _, r := range rules {
		all.addNet(r.Dst)
	}
	return nil
}

// addDivides adds where the choice between two of the host's IPv6 addresses
// turns: of two that are equal otherwise, the kernel takes the one that has
// more leading bits in common with the destination. In order, neighbours have
// the most in common with each other.
func (f *Follower) addDivides(all set) error {
	list, err := f.asks.AddrList(nil, unix.AF_INET6)
	if err := listed("addresses", err); err != nil {
		return err
	}
	var own []netip.Addr
	for _, a := range list {
		if addr, ok := netipx.FromStdIP(a.IP); ok && !addr.IsLinkLocalUnicast() {
			own = append(own, addr)
		}
	}
	slices.SortFunc(own, netip.Addr.Compare)
	for i := range len(own) - 1 {
		bits := commonBits(own[i], own[i+1]) + 1
		if bits <= 128 {
			all.add(netip.PrefixFrom(own[i], bits))
			all.add(netip.PrefixFrom(own[i+1], bits))
		}
	}
	return nil
}

func commonBits(a, b netip.Addr) (n int) {
	for n < a.BitLen() && netip.PrefixFrom(a, n+1).Masked() == netip.PrefixFrom(b, n+1).Masked() {
		n++
	}
	return n
}

// samples yields each prefix with an address that is in it and in none that is
// longer. One that longer ones cover has none, and nothing is ever found by it.
func samples(prefixes set) iter.Seq2[netip.Prefix, netip.Addr] {
	list := slices.AppendSeq(slices.Clone(unasked), maps.Keys(prefixes))
	slices.SortFunc(list, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return func(yield func(netip.Prefix, netip.Addr) bool) {
		for i, p := range list {
			sample := firstFree(p, list[i+1:])
			if prefixes[p] && sample.IsValid() && !yield(p, sample) {
				return
			}
		}
	}
}

// firstFree finds the first address of p that is in none of those after it.
func firstFree(p netip.Prefix, after []netip.Prefix) netip.Addr {
	at := p.Addr()
	for _, longer := range after {
		if !at.IsValid() || !p.Contains(at) || at.Less(longer.Addr()) {
			break
		}
		if longer.Contains(at) {
			at = netipx.PrefixLastIP(longer).Next()
		}
	}
	if !p.Contains(at) {
		return netip.Addr{}
	}
	return at
}
