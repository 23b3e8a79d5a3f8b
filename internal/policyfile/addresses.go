package policyfile

import (
	"net/netip"

	"go4.org/netipx"

	"github.com/waybill-net/waybill/internal/policy"
)

// Loopback and IPv6 link-local space, which is redirected only by filters that
// name some of it.
func localSpaces() []netip.Prefix {
	return []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8),
		netip.PrefixFrom(netip.IPv6Loopback(), 128),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfe, 0x80}), 10),
	}
}

// addresses are those that a filter matches, its exceptions taken out.
func addresses(f *policy.Filter) []span[netip.Addr] {
	destination := f.Destination
	if len(destination) == 0 {
		destination = []netip.Prefix{
			netip.PrefixFrom(netip.IPv4Unspecified(), 0),
			netip.PrefixFrom(netip.IPv6Unspecified(), 0),
		}
	}
	var b netipx.IPSetBuilder
	for _, p := range destination {
		b.AddPrefix(p)
	}
	if f.Action == policy.ActionRedirect {
		keepNamed(&b, destination)
	}
	for _, p := range f.NotDestination {
		b.RemovePrefix(p)
	}
	set, err := b.IPSet()
	if err != nil {
		return nil // only for prefixes that are not valid, which are refused on reading
	}
	var spans []span[netip.Addr]
	for _, r := range set.Ranges() {
		spans = append(spans, span[netip.Addr]{r.From(), r.To()})
	}
	return spans
}

// keepNamed takes local space out of b, but for the prefixes that lie inside it.
func keepNamed(b *netipx.IPSetBuilder, destination []netip.Prefix) {
	for _, local := range localSpaces() {
		b.RemovePrefix(local)
	}
	for _, local := range localSpaces() {
		for _, p := range destination {
			if local.Overlaps(p) && p.Bits() >= local.Bits() {
				b.AddPrefix(p)
			}
		}
	}
}
