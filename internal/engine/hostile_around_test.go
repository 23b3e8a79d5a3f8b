//go:build linux

package engine_test

import (
	"strconv"
	"testing"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/testenv"
)

// aroundInFlight is the limit of connections in mid-handshake in these tests.
const aroundInFlight = 8

// found is what testdata/around.py found at the other end: what a proxy
// reported, or the origin's answer.
type found struct {
	report
	Answer string
}

func goAround(t *testing.T, env *testenv.Env, way string, args ...string) found {
	t.Helper()
	var f found
	decode(t, env.Run("app", "python3", append([]string{"testdata/around.py", way}, args...)...), &f)
	return f
}

// startAround has provider a in front of the origin, on both families.
func startAround(t *testing.T, onDown policy.OnDown) (*testenv.Env, *engine.Engine) {
	t.Helper()
	env := testenv.New(t)
	env.AddDevice("elsewhere")
	e := open(t, env, engine.Options{InFlight: aroundInFlight})
	startOrigin(t, env)
	p := chain(env, "a")
	p.Providers[0].OnDown = onDown
	apply(t, e, p)
	startReporter(env, "a", "::")
	return env, e
}

// TestAroundIsRedirected: however a program without privileges connects, the
// proxy gets the connection, with its records.
func TestAroundIsRedirected(t *testing.T) {
	for _, tt := range []struct{ way, dst string }{
		{"plain", "192.0.2.1 8080"},
		{"mapped", "192.0.2.1 8080"},
		{"mptcp", "192.0.2.1 8080"},
		{"mptcp6", "2001:db8::1 8080"},
		{"unspecified", "127.0.0.1 8080"},
		{"unspecified6", "::1 8080"},
		{"unspecified6_from_mapped", "127.0.0.1 8080"},
	} {
		t.Run(tt.way, func(t *testing.T) {
			t.Parallel()
			env, e := startAround(t, policy.Bypass)
			r := goAround(t, env, tt.way)
			if r.Error != "" || r.Hops != 1 || r.State != bySelf || r.Dst != tt.dst || r.UID != nobodyUID {
				t.Errorf("found %+v, want the proxy, asked for %s", r, tt.dst)
			}
			checkNothingInFlight(t, e)
		})
	}
}

const nobodyUID = 65534

// TestAroundWhenDown: what a program can do to its own socket, or to the map
// of connections in mid-handshake. If a provider counts as down by it, whether
// that is a way around is the on-down policy's to say; where it is the program's
// own doing alone, its connect() fails. docs/security.md names each of them.
func TestAroundWhenDown(t *testing.T) {
	for _, tt := range []struct {
		way, counter string
		args         []string
		bypassed     found
	}{
		{"without_option_memory", "refused_no_memory", nil, found{report: report{Error: "ENOBUFS"}}},
		{"after_unanswered", "refused_over_share", []string{strconv.Itoa(aroundInFlight / 2)}, found{report: report{Error: "ENOBUFS"}}},
		// The device leads nowhere: what counts is that the connection left by it.
		{"bound_to_device", "down_device", nil, found{report: report{Error: "EHOSTUNREACH"}}},
	} {
		for _, onDown := range []policy.OnDown{policy.Bypass, policy.Block} {
			t.Run(tt.way+"/"+onDown.String(), func(t *testing.T) {
				t.Parallel()
				env, e := startAround(t, onDown)
				want := tt.bypassed
				if onDown == policy.Block && want.Error != "ENOBUFS" {
					want = found{report: report{Error: "EACCES"}}
				}
				if got := goAround(t, env, tt.way, tt.args...); got != want {
					t.Errorf("found %+v, want %+v", got, want)
				}
				if c := counters(t, e); c[tt.counter] != 1 {
					t.Errorf("counters: %v", c)
				}
			})
		}
	}
}

// TestShareOfOthers: a user who has his share of the map in use takes nothing
// from others.
func TestShareOfOthers(t *testing.T) {
	t.Parallel()
	env, e := startAround(t, policy.Bypass)
	env.Start("app", "python3", "testdata/around.py", "hold_unanswered", strconv.Itoa(aroundInFlight))
	var r report
	decode(t, env.Run("app", "python3", "testdata/connects.py", "plain"), &r)
	checkReport(t, r, 1)
	if c := counters(t, e); c["refused_over_share"] != aroundInFlight/2 || c["bypassed"] != 0 {
		t.Errorf("counters: %v", c)
	}
}

// TestSendWithoutConnect: TCP has no such thing.
func TestSendWithoutConnect(t *testing.T) {
	t.Parallel()
	env, e := startAround(t, policy.Bypass)
	if r := goAround(t, env, "sendto_without_connect"); r.Error != "EPIPE" {
		t.Errorf("found %+v, want EPIPE", r)
	}
	if c := counters(t, e); len(c) != 0 {
		t.Errorf("counters: %v", c)
	}
}

// TestDialProxyDirectlyIsBlocked: a filter that blocks a proxy's own address
// keeps programs from dialling it by hand, and nothing from being redirected
// to it.
func TestDialProxyDirectlyIsBlocked(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	p := chain(env, "a")
	direct := toOrigin("a")
	direct.Action, direct.Ports = policy.ActionBlock, []policy.PortRange{policy.Port(7001)}
	p.Filters = append(p.Filters, direct)
	apply(t, e, p)
	startReporter(env, "a", "127.0.0.1")
	var r report
	decode(t, env.Run("app", "python3", "testdata/connects.py", "plain"), &r)
	checkReport(t, r, 1)
	var c clientReport
	decode(t, env.Run("app", "python3", "testdata/client.py", "127.0.0.1", "7001"), &c)
	if c.Error != "EACCES" {
		t.Errorf("dialling the proxy by hand: %+v", c)
	}
}
