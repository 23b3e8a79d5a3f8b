//go:build linux

package engine_test

import (
	"errors"
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
	set := func(host string, names ...string) {
		t.Helper()
		setNames(t, e, netip.MustParseAddr(host), names...)
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
		if got := isRedirected(t, env, e, step.host); got != step.want {
			t.Errorf("%s: redirected %t, want %t", step.what, got, step.want)
		}
	}
}

func setNames(t *testing.T, e *engine.Engine, addr netip.Addr, names ...string) {
	t.Helper()
	if err := e.SetNames(addr, names); err != nil {
		t.Fatal(err)
	}
}

func isRedirected(t *testing.T, env *testenv.Env, e *engine.Engine, host string) bool {
	t.Helper()
	before := counters(t, e)["redirected"]
	if r := runClient(t, env, host); r.Error != "" {
		t.Fatal(r.Error)
	}
	return counters(t, e)["redirected"] > before
}

// asking is a policy of a provider that is there, with a filter that asks for
// example.org.
func asking(env *testenv.Env) policy.Policy {
	p := chain(env, "a")
	p.Filters[0].Domains = []string{"example.org"}
	env.StartCommand(roleCommand(env, "a", "proxy", "127.0.0.1:7001", "[::1]:7001"))
	return p
}

// TestNamesOfMany: of the addresses that filters ask for those count that were
// told last. Others do not count.
func TestNamesOfMany(t *testing.T) {
	t.Parallel()
	const most = 16384
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	p := asking(env)
	apply(t, e, p)
	first, second := testenv.Outside4, netip.MustParseAddr("192.0.2.2")
	next := netip.MustParseAddr("198.51.100.0")
	tell := func(n int, name string) {
		for range n {
			setNames(t, e, next, name)
			next = next.Next()
		}
	}
	check := func(when string, wantFirst, wantSecond bool) {
		t.Helper()
		gotFirst, gotSecond := isRedirected(t, env, e, first.String()), isRedirected(t, env, e, second.String())
		if gotFirst != wantFirst || gotSecond != wantSecond {
			t.Errorf("%s: redirected %t and %t, want %t and %t", when, gotFirst, gotSecond, wantFirst, wantSecond)
		}
	}
	setNames(t, e, first, "example.org")
	setNames(t, e, second, "example.org")
	tell(most-2, "example.org")
	tell(100, "other.test")
	check("as many as there may be", true, true)
	setNames(t, e, first, "example.org", "other.test")
	tell(1, "example.org")
	check("one more", true, false)
	apply(t, e, p)
	check("after another policy", true, false)
	setNames(t, e, second, "example.org")
	tell(most-2, "example.org")
	check("told again, and others", false, true)
	setNames(t, e, next.Prev())
	apply(t, e, p)
	check("one is forgotten, and another policy", true, true)
}

// TestNamesOfAdopted: what names led to stays with a policy that is adopted.
// What is told then counts from the next policy on, with all else that was.
func TestNamesOfAdopted(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	startOrigin(t, env)
	opts := engine.Options{State: env.StateDir()}
	first := open(t, env, opts)
	p := asking(env)
	apply(t, first, p)
	setNames(t, first, testenv.Outside4, "example.org")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	e := open(t, env, opts)
	if !isRedirected(t, env, e, "192.0.2.1") {
		t.Error("adopted, its names are forgotten")
	}
	if err := e.SetNames(netip.MustParseAddr("192.0.2.2"), []string{"example.org"}); !errors.Is(err, engine.ErrUnknownPolicy) {
		t.Errorf("told under a policy that is not known: %v", err)
	}
	if isRedirected(t, env, e, "192.0.2.2") {
		t.Error("and it counts")
	}
	apply(t, e, p)
	if isRedirected(t, env, e, "192.0.2.1") || !isRedirected(t, env, e, "192.0.2.2") {
		t.Error("under the next policy not what this engine was told counts")
	}
}
