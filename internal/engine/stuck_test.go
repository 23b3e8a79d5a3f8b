//go:build linux

package engine_test

import (
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/testenv"
)

// TestStuckProxy: connections go past a proxy that listens and does not accept,
// and to it again when it does.
func TestStuckProxy(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	p := chain(env, "a")
	p.Providers[0].StuckAfter = 300 * time.Millisecond
	apply(t, e, p)
	deaf := env.Start("a", "python3", "testdata/deaf.py", "127.0.0.1", "7001", "128")
	waiter := env.Start("app", "python3", "testdata/waiter.py")

	time.Sleep(400 * time.Millisecond)
	if got := runClient(t, env, "192.0.2.1"); got.Answer != answer {
		t.Errorf("past the stuck proxy the client got %+v", got)
	}
	if c := counters(t, e); c["redirected"] != 1 || c["down_stuck"] != 1 || c["bypassed"] != 1 {
		t.Errorf("counters: %v", c)
	}
	if l := listenerOf(t, env, e, "a"); l.Waiting != 1 || l.LongestWait < 400*time.Millisecond || l.LongestWait > time.Minute || l.Full() {
		t.Errorf("listener: %+v", l)
	}

	deaf.Cmd.Process.Signal(syscall.SIGUSR1)
	if got := waiter.Wait(); got != "heard by 127.0.0.1 7001" {
		t.Errorf("who had waited got %q", got)
	}
	if got := runClient(t, env, "192.0.2.1"); got.Answer != "heard by 127.0.0.1 7001" {
		t.Errorf("when the proxy accepts, the client got %+v", got)
	}
	if l := listenerOf(t, env, e, "a"); l.Waiting != 0 || l.LongestWait != 0 {
		t.Errorf("listener: %+v", l)
	}
}

// TestFullBacklog: a SYN to a proxy whose queue is full would be dropped.
func TestFullBacklog(t *testing.T) {
	for _, block := range []bool{false, true} {
		t.Run("block="+strconv.FormatBool(block), func(t *testing.T) {
			t.Parallel()
			env := testenv.New(t)
			e := open(t, env, engine.Options{})
			startOrigin(t, env)
			p := chain(env, "a")
			p.Providers[0].StuckAfter = policy.MaxStuckAfter
			want := clientReport{Answer: answer, Peer: "192.0.2.1 8080"}
			if block {
				p.Providers[0].OnDown = policy.Block
				want = clientReport{Error: "EACCES"}
			}
			apply(t, e, p)
			env.Start("a", "python3", "testdata/deaf.py", "127.0.0.1", "7001", "1")
			for range 2 {
				env.Start("app", "python3", "testdata/waiter.py")
			}
			if got := runClient(t, env, "192.0.2.1"); got != want {
				t.Errorf("client got %+v, want %+v", got, want)
			}
			if c := counters(t, e); c["redirected"] != 2 || c["down_backlog_full"] != 1 {
				t.Errorf("counters: %v", c)
			}
			if l := listenerOf(t, env, e, "a"); !l.Full() || l.Waiting != 2 {
				t.Errorf("listener: %+v", l)
			}
		})
	}
}

// listenerOf returns the only listener of a provider.
func listenerOf(t *testing.T, env *testenv.Env, e *engine.Engine, provider string) engine.Listener {
	t.Helper()
	var all, own []engine.Listener
	env.Inside(func() (err error) {
		all, err = e.Listeners()
		return err
	})
	for _, l := range all {
		if l.Owner == provider {
			own = append(own, l)
		}
	}
	if len(own) != 1 || len(all) != 2 { // and the origin's
		t.Fatalf("%d listeners of %s, of %d", len(own), provider, len(all))
	}
	return own[0]
}

// TestProxyDies: who waits for a proxy that dies is told at once, and the
// provider's counters tell how many they were.
func TestProxyDies(t *testing.T) {
	for name, accepts := range map[string]bool{"before accept": false, "after accept": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := testenv.New(t)
			e := open(t, env, engine.Options{})
			startOrigin(t, env)
			apply(t, e, chain(env, "a"))
			program := []string{"testdata/deaf.py", "127.0.0.1", "7001", "128"}
			if accepts {
				program = []string{"-c", acceptsAndIsSilent}
			}
			proxy := env.Start("a", "python3", program...)
			waiter := env.Start("app", "python3", "testdata/waiter.py")
			start := time.Now()
			proxy.Kill()
			if got := waiter.Wait(); got != "ECONNRESET" || time.Since(start) > 5*time.Second {
				t.Errorf("after %v the client got %q", time.Since(start), got)
			}
			counts, err := e.ProviderCounters()
			if err != nil || counts["a"].Reset != 1 {
				t.Errorf("counters: %+v, %v", counts, err)
			}
			checkNothingInFlight(t, e)
		})
	}
}

const acceptsAndIsSilent = `
import socket
listener = socket.create_server(("127.0.0.1", 7001))
print("ready", flush=True)
conn, _ = listener.accept()
listener.accept()
`

// TestOwnProxyDies: the proxies of waybill leave nobody in doubt, even if they
// had read all that there was: an orderly end would look like the end of the
// answer.
func TestOwnProxyDies(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startEchoOrigin(env) // which waits for more than waiter.py sends
	apply(t, e, chain(env, "a"))
	proxy := env.StartCommand(roleCommand(env, "a", "proxy", "127.0.0.1:7001"))
	waiter := env.Start("app", "python3", "testdata/waiter.py")
	waitFor(t, "the proxy to go on", func() bool { return counters(t, e)["passed"] == 1 })
	time.Sleep(100 * time.Millisecond) // until it has relayed
	proxy.Kill()
	if got := waiter.Wait(); got != "ECONNRESET" {
		t.Errorf("the client got %q", got)
	}
}

// TestDestinationThatRefuses: connect() itself says what is wrong with an
// address of this machine where nobody listens, and with one that is no peer.
func TestDestinationThatRefuses(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	p := chain(env, "a")
	p.Filters[0].Ports = nil
	apply(t, e, p)
	startReporter(env, "a", "127.0.0.1")
	outside := env.Run("elsewhere", "python3", "testdata/refusals.py")
	e.Apply(policy.Policy{})
	if direct := env.Run("app", "python3", "testdata/refusals.py"); outside != direct {
		t.Errorf("with a provider:\n%s\nwithout:\n%s", outside, direct)
	}
	if c := counters(t, e); c["destination_refuses"] != 6 || c["redirected"] != 0 {
		t.Errorf("counters: %v", c)
	}
}

// TestEmulateTPROXY: behind TPROXY the address of a proxy's own end is the
// original destination.
func TestEmulateTPROXY(t *testing.T) {
	for _, tt := range []struct{ name, host, proxy, redirect string }{
		{"IPv4", "192.0.2.1", "127.0.0.1", "127.0.0.1 7001"},
		{"IPv6", "2001:db8::1", "::1", "::1 7001"},
		{"dual-stack proxy", "192.0.2.1", "::", "::ffff:127.0.0.1 7001"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			env := testenv.New(t)
			e := open(t, env, engine.Options{})
			startOrigin(t, env)
			p := chain(env, "a")
			apply(t, e, p)
			proxy := env.Start("a", "python3", "testdata/deaf.py", tt.proxy, "7001", "128")
			proxy.Cmd.Process.Signal(syscall.SIGUSR1)
			if got := runClient(t, env, tt.host); got.Answer != "heard by "+tt.redirect {
				t.Errorf("behind REDIRECT: %+v", got)
			}
			p.Providers[0].Emulate = policy.EmulateTPROXY
			apply(t, e, p)
			want := "heard by " + tt.host + " 8080"
			if tt.proxy == "::" {
				want = "heard by ::ffff:" + tt.host + " 8080"
			}
			if got := runClient(t, env, tt.host); got.Answer != want || got.Peer != tt.host+" 8080" {
				t.Errorf("behind TPROXY: %+v, want %q", got, want)
			}
		})
	}
}
