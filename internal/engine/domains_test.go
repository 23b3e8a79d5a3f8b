package engine_test

import (
	"net/netip"
	"testing"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/testenv"
)

// TestNames: a filter that asks for a name matches the addresses that it led
// to, from the moment at which somebody tells, through changes of policy, until
// they are forgotten.
func TestNames(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	p := chain(env, "a")
	p.Filters[0].Domains = []string{"*.example.org", "example.net"}
	apply(t, e, p)
	env.StartCommand(roleCommand(env, "a", "proxy", "127.0.0.1:7001", "[::1]:7001"))
	alone := policy.Filter{
		Name: "alone", Provider: "a", Destination: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/32")}, Ports: []policy.PortRange{policy.Port(1)},
	}
	redirected := func(host string) bool {
		t.Helper()
		before := counters(t, e)["redirected"]
		if r := runClient(t, env, host); r.Error != "" {
			t.Fatal(r.Error)
		}
		return counters(t, e)["redirected"] > before
	}
	set := func(host string, names ...string) {
		t.Helper()
		if err := e.SetNames(netip.MustParseAddr(host), names); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		what, host string
		do         func()
		want       bool
	}{
		{"nobody has told", "192.0.2.1", func() {}, false},
		{"a name below", "192.0.2.1", func() { set("192.0.2.1", "www.example.org") }, true},
		{"another address", "192.0.2.2", func() {}, false},
		{"the name itself", "2001:db8::1", func() { set("2001:db8::1", "example.net") }, true},
		{"not below it", "2001:db8::2", func() { set("2001:db8::2", "www.example.net") }, false},
		{"a mapped address", "192.0.2.2", func() { set("::ffff:192.0.2.2", "other.test", "a.b.example.org") }, true},
		{"after another policy", "192.0.2.1", func() { p.Filters[0].Name = "renamed"; apply(t, e, p) }, true},
		{"forgotten", "192.0.2.1", func() { set("192.0.2.1") }, false},
		{"forgotten, and another policy", "192.0.2.1", func() { apply(t, e, p) }, false},
		{"the others are not", "192.0.2.2", func() {}, true},
		{"an address that the policy has as well", "192.0.2.2", func() { p.Filters = append(p.Filters, alone); apply(t, e, p) }, true},
		{"forgotten, which the policy's class is not", "192.0.2.2", func() { set("192.0.2.2") }, false},
		{"which it is for", "192.0.2.2", func() { p.Filters[1].Ports[0] = policy.Port(originPort); apply(t, e, p) }, true},
		{"told and forgotten", "192.0.2.2", func() { set("192.0.2.2", "example.net"); set("192.0.2.2", "other.test") }, true},
		{"no filter asks", "192.0.2.1", func() { p.Filters[0].Domains = nil; apply(t, e, p) }, true},
	} {
		step.do()
		if got := redirected(step.host); got != step.want {
			t.Errorf("%s: redirected %t, want %t", step.what, got, step.want)
		}
	}
}
