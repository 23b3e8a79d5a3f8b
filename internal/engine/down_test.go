//go:build linux

package engine_test

import (
	"net/netip"
	"strconv"
	"testing"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/testenv"
)

// TestDown has a provider whose proxy can not be reached, for each reason,
// under each on-down policy.
func TestDown(t *testing.T) {
	for _, tt := range []struct {
		name    string
		counter string
		break_  func(t *testing.T, env *testenv.Env, p *policy.Policy)
		host    string
	}{
		{"nothing listens", "down_no_listener", func(*testing.T, *testenv.Env, *policy.Policy) {}, "127.0.0.1"},
		{"killed", "down_no_listener", func(_ *testing.T, env *testenv.Env, _ *policy.Policy) {
			startReporter(env, "a", "127.0.0.1").Kill()
		}, "127.0.0.1"},
		{"a stranger took the port", "down_foreign_listener", func(_ *testing.T, env *testenv.Env, _ *policy.Policy) {
			env.Start("stranger", "python3", "testdata/listen.py", "127.0.0.1", "7001")
		}, "127.0.0.1"},
		{"another provider took the port", "down_foreign_listener", func(_ *testing.T, env *testenv.Env, p *policy.Policy) {
			b := provider(env, "b")
			b.Weight = 1
			p.Providers = append(p.Providers, b)
			env.Start("b", "python3", "testdata/listen.py", "127.0.0.1", "7001")
		}, "127.0.0.1"},
		{"no address for the family", "down_no_address", func(_ *testing.T, env *testenv.Env, p *policy.Policy) {
			p.Providers[0].Listen6 = policy.Provider{}.Listen6
			startReporter(env, "a", "127.0.0.1")
		}, "::1"},
	} {
		for _, block := range []bool{false, true} {
			t.Run(tt.name+"/block="+strconv.FormatBool(block), func(t *testing.T) {
				t.Parallel()
				env := testenv.New(t)
				e := open(t, env, engine.Options{})
				startOrigin(t, env)
				p := chain(env, "a")
				tt.break_(t, env, &p)
				want, counted := clientReport{Peer: tt.host + " 8080", Answer: answer}, "bypassed"
				if block {
					p.Providers[0].OnDown = policy.Block
					want, counted = clientReport{Error: "EACCES"}, "blocked"
				}
				apply(t, e, p)
				if got := runClient(t, env, tt.host); got != want {
					t.Errorf("client got %+v, want %+v", got, want)
				}
				c := counters(t, e)
				if c[tt.counter] != 1 || c[counted] != 1 || c["redirected"] != 0 {
					t.Errorf("counters: %v", c)
				}
				pc, err := e.ProviderCounters()
				if err != nil || pc["a"].Bypassed+pc["a"].Blocked != 1 {
					t.Errorf("provider counters: %+v, %v", pc, err)
				}
			})
		}
	}
}

// TestDeadProxyIsSkipped kills the first of two proxies: the second still
// sees the connection.
func TestDeadProxyIsSkipped(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	apply(t, e, chain(env, "a", "b"))
	startReporter(env, "a", "127.0.0.1").Kill()
	startReporter(env, "b", "127.0.0.1")
	var r report
	decode(t, env.Run("app", "python3", "testdata/connects.py", "plain"), &r)
	checkReport(t, r, 1)
	if c := counters(t, e); c["bypassed"] != 1 || c["redirected"] != 1 {
		t.Errorf("counters: %v", c)
	}
}

// TestBoundToDevice: from a socket bound to a device, nothing reaches a proxy
// on loopback.
func TestBoundToDevice(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	env.AddDevice("elsewhere")
	e := open(t, env, engine.Options{})
	apply(t, e, chain(env, "a"))
	startReporter(env, "a", "127.0.0.1")
	out := env.Run("app", "python3", "-c", `
import socket
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"elsewhere")
s.setblocking(False)
s.connect_ex(("192.0.2.77", 8080))
`)
	if c := counters(t, e); c["down_device"] != 1 || c["bypassed"] != 1 || c["redirected"] != 0 {
		t.Errorf("counters: %v\n%s", c, out)
	}
}

// TestInFlightFull fills the in-flight map with connections that a proxy does
// not accept.
func TestInFlightFull(t *testing.T) {
	const limit = 8
	for _, block := range []bool{false, true} {
		t.Run("block="+strconv.FormatBool(block), func(t *testing.T) {
			t.Parallel()
			env := testenv.New(t)
			e := open(t, env, engine.Options{InFlight: limit})
			startOrigin(t, env)
			p := chain(env, "a")
			want, counted := clientReport{Answer: answer}, "bypassed"
			if block {
				p.Providers[0].OnDown = policy.Block
				want, counted = clientReport{Error: "EACCES"}, "blocked"
			}
			apply(t, e, p)
			startReporter(env, "a", "127.0.0.1")
			env.DropPacketsTo(7001)
			var got clientReport
			decode(t, env.Run("app", "python3", "testdata/pile.py", strconv.Itoa(limit)), &got)
			if got != want {
				t.Errorf("client got %+v, want %+v", got, want)
			}
			c := counters(t, e)
			if c["down_inflight_full"] != 1 || c[counted] != 1 || c["redirected"] != limit {
				t.Errorf("counters: %v", c)
			}
			checkNothingInFlight(t, e)
		})
	}
}

// TestListenBeforeApply applies a policy after its proxy has begun to listen.
func TestListenBeforeApply(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	startReporter(env, "a", "127.0.0.1")
	apply(t, e, chain(env, "a"))
	var r report
	decode(t, env.Run("app", "python3", "testdata/connects.py", "plain"), &r)
	checkReport(t, r, 1)
}

// TestProviderMovesToAnotherCgroup: a listener is the provider's only as long
// as its cgroup is.
func TestProviderMovesToAnotherCgroup(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	p := chain(env, "a")
	apply(t, e, p)
	startReporter(env, "a", "127.0.0.1")
	p.Providers[0].Cgroup = env.Cgroup("elsewhere")
	apply(t, e, p)
	if got := runClient(t, env, "127.0.0.1"); got.Answer != answer {
		t.Errorf("client got %+v", got)
	}
	if c := counters(t, e); c["down_foreign_listener"] != 1 || c["redirected"] != 0 {
		t.Errorf("counters: %v", c)
	}
	// And back, while it listens all the time.
	apply(t, e, chain(env, "a"))
	var r report
	decode(t, env.Run("app", "python3", "testdata/connects.py", "plain"), &r)
	checkReport(t, r, 1)
}

// TestHopLimit has more providers than a flow may have hops.
func TestHopLimit(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	apply(t, e, chain(env, names...))
	proxy := compile(t, "../../examples/c/proxy.c")
	for i, name := range names {
		env.Start(name, proxy, "127.0.0.1", strconv.Itoa(7001+i))
	}
	if got, want := runClient(t, env, "127.0.0.1"), (clientReport{Peer: "127.0.0.1 8080", Answer: answer}); got != want {
		t.Errorf("through 8 proxies: client got %+v, want %+v", got, want)
	}
	if c := counters(t, e); c["redirected"] != 8 || c["looped"] != 0 {
		t.Errorf("counters: %v", c)
	}
	// Seven C proxies, an eighth that looks closely, and a ninth that is one too many.
	p := chain(env, append(names, "i")...)
	p.Providers[7].Listen = netip.MustParseAddrPort("127.0.0.1:7108")
	apply(t, e, p)
	env.Start("i", proxy, "127.0.0.1", "7009")
	var r struct {
		Hops, Size   int
		Error, Other string
	}
	decode(t, env.Run("h", "python3", "testdata/hops.py", "127.0.0.1", "7108", env.Cgroup("app")), &r)
	if r.Hops != 8 || r.Size != 80+8*40+16 || r.Error != "ELOOP" || r.Other != "ECONNREFUSED" {
		t.Errorf("the eighth proxy saw %+v", r)
	}
	if c := counters(t, e); c["redirected"] != 16 || c["looped"] != 1 {
		t.Errorf("counters: %v", c)
	}
}
