//go:build linux

package engine_test

import (
	"bytes"
	"flag"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/testenv"
)

var (
	loadConnections = flag.Int("load", 10000, "connections of the load tests")
	loadAtOnce      = 64
)

// startLoadProxies starts the proxies of a chain of three.
func startLoadProxies(env *testenv.Env, names ...string) map[string]*testenv.Server {
	servers := make(map[string]*testenv.Server)
	for _, name := range names {
		port := strconv.Itoa(7001 + int(name[0]-'a'))
		servers[name] = env.StartCommand(roleCommand(env, name, "proxy", "127.0.0.1:"+port))
	}
	return servers
}

// startLoadClient starts the client; its summary comes when it ends.
func startLoadClient(t *testing.T, env *testenv.Env) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := roleCommand(env, "app", "client", "127.0.0.1:"+strconv.Itoa(originPort), strconv.Itoa(*loadConnections), strconv.Itoa(loadAtOnce))
	out := &bytes.Buffer{}
	cmd.Stdout = out
	env.Inside(cmd.Start)
	return cmd, out
}

// TestChainUnderLoad sends many connections through a chain of three.
func TestChainUnderLoad(t *testing.T) {
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	origin := startEchoOrigin(env)
	apply(t, e, chain(env, "a", "b", "c"))
	servers := startLoadProxies(env, "a", "b", "c")

	start := time.Now()
	client, out := startLoadClient(t, env)
	if err := client.Wait(); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	var sum clientSummary
	decode(t, out.String(), &sum)
	n := *loadConnections
	t.Logf("%d connections through 3 proxies, %d at once, in %.1f s: %v", n, loadAtOnce, took.Seconds(), sum)
	if sum.Arrived != n {
		t.Errorf("%d of %d arrived", sum.Arrived, n)
	}
	if came, twice := origin.counts(); came != n || twice != 0 {
		t.Errorf("the origin saw %d, %d of them more than once", came, twice)
	}
	for name, s := range servers {
		var got proxySummary
		decode(t, s.Stop(syscall.SIGTERM), &got)
		if want := (proxySummary{Accepted: n}); got != want {
			t.Errorf("proxy %s: %+v, want %+v", name, got, want)
		}
	}
	checkNothingInFlight(t, e)
	if c := counters(t, e); c["redirected"] != uint64(3*n) || c["arrived"] != uint64(3*n) || c["passed"] != uint64(n) || c["bypassed"] != 0 {
		t.Errorf("counters: %v", c)
	}
	waitFor(t, "the storage of all sockets to go", func() bool {
		flows, err := flowsIn(env, e)
		return err == nil && len(flows) == 0
	})
}

// TestProxiesKilledUnderLoad kills each of three proxies in turn, starts it
// again, and goes on with the next.
func TestProxiesKilledUnderLoad(t *testing.T) {
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	origin := startEchoOrigin(env)
	names := []string{"a", "b", "c"}
	apply(t, e, chain(env, names...))
	servers := startLoadProxies(env, names...)

	client, out := startLoadClient(t, env)
	ended := make(chan error, 1)
	go func() { ended <- client.Wait() }()
	var deaths []death
	for running := true; running; {
		for _, name := range names {
			deaths = append(deaths, kill(servers[name]))
			// Some load without the proxy, and some with it again.
			running = stillRunning(ended, time.Second)
			servers[name] = startLoadProxies(env, name)[name]
			running = running && stillRunning(ended, time.Second)
			if !running {
				break
			}
		}
	}

	var sum clientSummary
	decode(t, out.String(), &sum)
	n := *loadConnections
	t.Logf("%d connections, %d kills: %v", n, len(deaths), sum)
	if sum.Arrived+sum.Refused+sum.Reset != n || sum.Hung != 0 || sum.Other != 0 {
		t.Errorf("%v: every connection must arrive or have been in the hands of a proxy that died", sum)
	}
	for _, f := range sum.Failed {
		if !slices.ContainsFunc(deaths, func(d death) bool { return d.explains(f) }) {
			t.Errorf("a connection of %v failed when no proxy had died: %s; the last death was %v before its end",
				f.End.Sub(f.Start), f.Err, f.End.Sub(lastBefore(deaths, f.End)))
		}
	}
	if came, twice := origin.counts(); came < sum.Arrived || twice != 0 {
		t.Errorf("the origin saw %d, %d of them more than once", came, twice)
	}
	c := counters(t, e)
	if c["blocked"] != 0 || c["looped"] != 0 || c["lost"] != 0 || c["bypassed"] == 0 {
		t.Errorf("counters: %v", c)
	}
	for _, s := range servers {
		s.Kill()
	}
	waitFor(t, "nothing to be in flight", func() bool {
		n, err := e.InFlight()
		return err == nil && n == 0
	})
	checkNothingInFlight(t, e)
}

// death is the time in which a proxy died: from the signal until all its
// sockets were closed.
type death struct{ from, to time.Time }

// slack is for the client to be told: a segment that was lost in the closing
// of a socket is sent again, and answered with a reset, after 200 ms, and after 400 more.
const slack = 700 * time.Millisecond

func (d death) explains(f failure) bool {
	return f.End.After(d.from) && f.End.Before(d.to.Add(slack))
}

func lastBefore(deaths []death, t time.Time) (last time.Time) {
	for _, d := range deaths {
		if d.to.Before(t) {
			last = d.to
		}
	}
	return last
}

func kill(s *testenv.Server) (d death) {
	d.from = time.Now()
	s.Kill()
	d.to = time.Now()
	return d
}

// stillRunning waits, and reports whether the client has not ended meanwhile.
func stillRunning(ended chan error, wait time.Duration) bool {
	select {
	case <-ended:
		return false
	case <-time.After(wait):
		return true
	}
}
