package policy_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/waybill-net/waybill/internal/policy"
)

// namingTable has n filters, each for a network and a name of its own, a third
// of them for the network alone, and a few for networks around all of those.
func namingTable(tb testing.TB, n int) *policy.Table {
	tb.Helper()
	p := policy.Policy{Providers: []policy.Provider{{Name: "a", Listen: netip.MustParseAddrPort("127.0.0.1:7001")}}}
	for i := range n {
		f := policy.Filter{Name: fmt.Sprint("f", i), Provider: "a", Domains: []string{fmt.Sprintf("*.d%d.example", i)}}
		network := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0})
		f.Destination = []netip.Prefix{netip.PrefixFrom(network, []int{24, 20, 32}[i%3]), netip.MustParsePrefix("2001:db8::/32")}
		switch i % 6 {
		case 1:
			f.Domains = nil
		case 2:
			f.Domains, f.Destination = nil, []netip.Prefix{netip.PrefixFrom(network, 8+i%24)}
		case 3:
			f.NotDestination = []netip.Prefix{netip.PrefixFrom(network, 30)}
		}
		p.Filters = append(p.Filters, f)
	}
	table, err := policy.Compile(p, policy.Identities{})
	if err != nil {
		tb.Fatal(err)
	}
	return table
}

func namedAddress(i int) (netip.Addr, []string) {
	return netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(i % 5)}), []string{fmt.Sprintf("www.d%d.example", i), "other.test"}
}

// TestNamed: of an address that names led to, the class has the filters that
// match it, as the decision asks each of them.
func TestNamed(t *testing.T) {
	const n = 600
	table := namingTable(t, n)
	seen := make(map[bool]int)
	for i := range n + 100 {
		addr, names := namedAddress(i)
		class, asked := table.Named(addr, names)
		if isAsked := i < n && len(table.Filters[i].Domains) > 0; asked != isAsked {
			t.Fatalf("%s: asked for %q: %t", addr, names, asked)
		}
		if !asked {
			continue
		}
		for j := range table.Filters {
			alone := *table
			alone.Filters = table.Filters[j : j+1]
			alone.Providers = []policy.TableProvider{table.Providers[0]}
			alone.Providers[0].Redirects = policy.Span{First: 0, End: 1}
			d := alone.Decide(policy.Query{Dst: netip.AddrPortFrom(addr, 80), Self: -1, Names: names})
			want, got := d.Verdict == policy.Redirect, class.Members[j/64]>>(j%64)&1 == 1
			if got != want {
				t.Fatalf("%s, filter %+v: in the class %t, want %t", addr, table.Filters[j].Filter, got, want)
			}
			seen[want]++
		}
	}
	if seen[true] < n || seen[false] < n {
		t.Errorf("%v: too few of one kind", seen)
	}
}

// BenchmarkNamed is what Apply has to find out about all addresses that are known.
func BenchmarkNamed(b *testing.B) {
	const filters, addresses = 10000, 65536
	table := namingTable(b, filters)
	var addrs [filters]netip.Addr
	var names [filters][]string
	for i := range filters {
		addrs[i], names[i] = namedAddress(i)
	}
	for b.Loop() {
		asked := 0
		for i := range addresses {
			if _, ok := table.Named(addrs[i%filters], names[i%filters]); ok {
				asked++
			}
		}
		if asked < addresses/2 {
			b.Fatalf("%d asked for", asked)
		}
	}
}
