package policy_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/waybill-net/waybill/internal/policy"
)

func provider(name string, weight int32, port uint16) policy.Provider {
	return policy.Provider{
		Name:    name,
		Weight:  weight,
		Listen:  netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port),
		Listen6: netip.AddrPortFrom(netip.IPv6Loopback(), port),
	}
}

func compile(t *testing.T, p policy.Policy) *policy.Table {
	t.Helper()
	table, err := policy.Compile(p, policy.Identities{})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestOrder(t *testing.T) {
	table := compile(t, policy.Policy{
		Providers: []policy.Provider{provider("light", -5, 1), provider("first", 7, 2), provider("heavy", 9, 3), provider("second", 7, 4)},
		Filters: []policy.Filter{
			{Provider: "first", Name: "one"},
			{Provider: "light"},
			{Provider: "first", Action: policy.ActionBlock},
			{Provider: "light", Action: policy.ActionPermit},
			{Provider: "first", Weight: 1, Ports: []policy.PortRange{policy.Port(80), {First: 8000, Last: 8100}}},
		},
	})
	var got []string
	for _, p := range table.Providers {
		got = append(got, fmt.Sprintf("%s %v %v", p.Name, p.Redirects, p.Authorizes))
	}
	want := "heavy {0 0} {3 3}, first {0 2} {3 4}, second {2 2} {4 4}, light {2 3} {4 5}"
	if strings.Join(got, ", ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, ", "), want)
	}
	if table.Filters[0].Weight != 1 {
		t.Errorf("the heaviest filter does not come first: %+v", table.Filters)
	}
}

func TestHandleIsStable(t *testing.T) {
	// Records on live sockets and blobs in flight name handles: the value for
	// a name must never change.
	if got := policy.Handle("adblock"); got != 0xdf9c55109030c414 {
		t.Errorf("handle of adblock is %#x", got)
	}
	if policy.Handle("a") == policy.Handle("b") {
		t.Error("two names, one handle")
	}
}

func TestCompileErrors(t *testing.T) {
	good := func() policy.Policy {
		return policy.Policy{
			Providers: []policy.Provider{provider("a", 1, 7001), provider("b", 2, 7002)},
			Filters:   []policy.Filter{{Provider: "a"}},
		}
	}
	compile(t, good())
	many := func(n int) (p policy.Policy) {
		for i := range n {
			p.Providers = append(p.Providers, provider(fmt.Sprintf("p%d", i), 0, uint16(i+1)))
		}
		return p
	}
	compile(t, many(policy.MaxProviders))
	for _, tt := range []struct {
		want string
		bad  func(p *policy.Policy)
	}{
		{`provider "A": name must`, func(p *policy.Policy) { p.Providers[0].Name = "A" }},
		{`provider "": name must`, func(p *policy.Policy) { p.Providers[0].Name = "" }},
		{`provider "b": name used twice`, func(p *policy.Policy) { p.Providers[0].Name = "b" }},
		{`proxy address 127.0.0.1:7001 is already that of provider "a"`, func(p *policy.Policy) { p.Providers[1].Listen = p.Providers[0].Listen }},
		{"no proxy address", func(p *policy.Policy) {
			p.Providers[0].Listen, p.Providers[0].Listen6 = netip.AddrPort{}, netip.AddrPort{}
		}},
		{"[::1]:7001 is not IPv4", func(p *policy.Policy) { p.Providers[0].Listen = p.Providers[0].Listen6 }},
		{"127.0.0.1:7001 is not IPv6", func(p *policy.Policy) { p.Providers[0].Listen6 = p.Providers[0].Listen }},
		{"[::ffff:127.0.0.1]:1 is not IPv6", func(p *policy.Policy) { p.Providers[0].Listen6 = netip.MustParseAddrPort("[::ffff:127.0.0.1]:1") }},
		{"0.0.0.0:1 is not one to connect to", func(p *policy.Policy) { p.Providers[0].Listen = netip.MustParseAddrPort("0.0.0.0:1") }},
		{"127.0.0.1:0 is not one to connect to", func(p *policy.Policy) { p.Providers[0].Listen = netip.MustParseAddrPort("127.0.0.1:0") }},
		{"has a zone", func(p *policy.Policy) { p.Providers[0].Listen6 = netip.MustParseAddrPort("[fe80::1%eth0]:1") }},
		{"unknown on-down policy 7", func(p *policy.Policy) { p.Providers[0].OnDown = 7 }},
		{`filter 1 "": no provider "z"`, func(p *policy.Policy) { p.Filters[0].Provider = "z" }},
		{"context of 1025 bytes, at most 1024", func(p *policy.Policy) { p.Filters[0].Context = make([]byte, 1025) }},
		{"ports 9-8", func(p *policy.Policy) { p.Filters[0].Ports = []policy.PortRange{{First: 9, Last: 8}} }},
		{"is not valid", func(p *policy.Policy) { p.Filters[0].Destination = []netip.Prefix{{}} }},
		{"65 providers, at most 64", func(p *policy.Policy) { *p = many(policy.MaxProviders + 1) }},
		{"10241 filters, at most 10240", func(p *policy.Policy) {
			p.Filters = slices.Repeat(p.Filters, policy.MaxFilters+1)
		}},
		{`domain "a..example": two dots`, func(p *policy.Policy) { p.Filters[0].Domains = []string{"a..example"} }},
		{`domain "A.example" is not in its canonical form, "a.example"`, func(p *policy.Policy) { p.Filters[0].Domains = []string{"A.example"} }},
		{"QUIC is dropped for given ports only", func(p *policy.Policy) { p.Filters[0].DropQUIC = true }},
		{"QUIC is dropped for filters that redirect TCP", func(p *policy.Policy) {
			p.Filters[0].DropQUIC, p.Filters[0].Ports = true, []policy.PortRange{policy.Port(443)}
			p.Filters[0].Protocols = []policy.Protocol{policy.TCP, policy.UDP}
		}},
		{"unknown action 3", func(p *policy.Policy) { p.Filters[0].Action = 3 }},
		{"a context belongs to a redirect; the action is block", func(p *policy.Policy) {
			p.Filters[0].Action, p.Filters[0].Context = policy.ActionBlock, []byte("c")
		}},
		{"state redirected-by-self is never redirected", func(p *policy.Policy) { p.Filters[0].States = []policy.State{policy.RedirectedBySelf} }},
	} {
		p := good()
		tt.bad(&p)
		_, err := policy.Compile(p, policy.Identities{})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error %v, want %q", err, tt.want)
		}
	}
}

func TestStates(t *testing.T) {
	a, b, c := policy.Handle("a"), policy.Handle("b"), policy.Handle("c")
	for _, tt := range []struct {
		name string
		hops []policy.Hop
		want policy.State // for a, of weight 5
	}{
		{"empty", nil, policy.NotRedirected},
		{"newest is self", []policy.Hop{{Handle: b}, {Handle: a}}, policy.RedirectedBySelf},
		{"others only", []policy.Hop{{Handle: b}, {Handle: c}}, policy.RedirectedByOther},
		{"self, then other", []policy.Hop{{Handle: a}, {Handle: b}}, policy.PreviouslyRedirectedBySelf},
		{"self twice", []policy.Hop{{Handle: a}, {Handle: b}, {Handle: a}}, policy.RedirectedBySelf},
		{"implied by a lighter one", []policy.Hop{{Handle: b, Weight: 4, Implied: true}}, policy.PreviouslyRedirectedBySelf},
		{"implied by an equal one", []policy.Hop{{Handle: b, Weight: 5, Implied: true}}, policy.PreviouslyRedirectedBySelf},
		{"implied by a heavier one", []policy.Hop{{Handle: b, Weight: 6, Implied: true}}, policy.RedirectedByOther},
	} {
		if got := policy.StateFor(a, 5, tt.hops); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

// TestDecide shows the rules that a person would ask about; the kernel's twin
// is compared with it on random input in internal/engine.
func TestDecide(t *testing.T) {
	p := policy.Policy{
		Providers: []policy.Provider{provider("a", 2, 7001), provider("b", 1, 7002)},
		Filters: []policy.Filter{
			{Provider: "a"},
			{Provider: "b", Destination: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("::/0")}},
		},
	}
	table := compile(t, p)
	for _, tt := range []struct {
		name  string
		query policy.Query
		want  string // provider; empty: pass
	}{
		{"everything is a's", policy.Query{Dst: netip.MustParseAddrPort("192.0.2.1:80"), Self: -1}, "a"},
		{"but not loopback", policy.Query{Dst: netip.MustParseAddrPort("127.0.0.1:80"), Self: -1}, "b"},
		{"0.0.0.0 is loopback", policy.Query{Dst: netip.MustParseAddrPort("0.0.0.0:80"), Self: -1}, "b"},
		{"::/0 is not IPv4", policy.Query{Dst: netip.MustParseAddrPort("127.0.0.2:80"), Self: -1}, ""},
		{"nor loopback", policy.Query{Dst: netip.MustParseAddrPort("[::1]:80"), Self: -1}, ""},
		{"a's own go on to b", policy.Query{Dst: netip.MustParseAddrPort("[2001:db8::1]:80"), Self: 0}, "b"},
		{"b's own go out", policy.Query{Dst: netip.MustParseAddrPort("[2001:db8::1]:80"), Self: 1}, ""},
		{"a is down", policy.Query{Dst: netip.MustParseAddrPort("[2001:db8::1]:80"), Self: -1, Down: 1}, "b"},
		{"to a proxy itself", policy.Query{Dst: netip.MustParseAddrPort("127.0.0.1:7001"), Self: -1}, ""},
	} {
		got := table.Decide(tt.query)
		name := ""
		if got.Verdict == policy.Redirect {
			name = table.Providers[got.Provider].Name
		} else if got.Verdict != policy.Pass {
			t.Errorf("%s: %+v", tt.name, got)
		}
		if name != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, name, tt.want)
		}
	}
}
