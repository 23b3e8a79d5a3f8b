//go:build linux

package engine_test

import (
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/testenv"
)

// TestUnawareProxies: two proxies that know only SO_ORIGINAL_DST, in a chain.
func TestUnawareProxies(t *testing.T) {
	for _, tt := range []struct{ name, host, proxy string }{
		{"IPv4", "192.0.2.1", "127.0.0.1"},
		{"IPv6", "2001:db8::1", "::1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			env := testenv.New(t)
			e := open(t, env, engine.Options{})
			startOrigin(t, env)
			apply(t, e, chain(env, "a", "b"))
			env.Start("a", "python3", "testdata/unaware.py", tt.proxy, "7001")
			env.Start("b", "python3", "testdata/unaware.py", tt.proxy, "7002")
			if got := runClient(t, env, tt.host); got.Answer != answer || got.Peer != tt.host+" 8080" {
				t.Errorf("client got %+v", got)
			}
			if c := counters(t, e); c["redirected"] != 2 || c["arrived"] != 2 || c["passed"] != 1 || c["set"] != 0 {
				t.Errorf("counters: %v", c)
			}
		})
	}
}

// TestUnawareProxyThatMoved: a proxy whose cgroup is no more its provider's
// is not sent anything, least of all its own connections.
func TestUnawareProxyThatMoved(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	p := chain(env, "a")
	apply(t, e, p)
	env.Start("a", "python3", "testdata/unaware.py", "127.0.0.1", "7001")
	p.Providers[0].Cgroup = env.Cgroup("elsewhere")
	apply(t, e, p)
	if got := runClient(t, env, "127.0.0.1"); got.Answer != answer {
		t.Errorf("client got %+v", got)
	}
	if c := counters(t, e); c["redirected"] != 0 || c["down_foreign_listener"] != 1 {
		t.Errorf("counters: %v", c)
	}
}

// TestReusedSockets: what one connection left on a socket must not reach the
// next.
func TestReusedSockets(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	p := chain(env, "a", "b")
	p.Filters[1].Context = []byte("for b alone")
	apply(t, e, p)
	var r struct{ NoPort, Deferred, Context, Accepted string }
	decode(t, env.Run("a", "python3", "testdata/reuse.py", env.Cgroup("app")), &r)
	if r.NoPort != "EADDRNOTAVAIL ok" {
		t.Errorf("SET after a connect() without a port: %s", r.NoPort)
	}
	if r.Deferred != "EINVAL ok" {
		t.Errorf("SET during and after a deferred connect(): %s", r.Deferred)
	}
	if r.Context != "ENODATA" {
		t.Errorf("a read a context on its own socket: %s", r.Context)
	}
	if r.Accepted != "0 0" {
		t.Errorf("a disconnected socket carried state %s into its next connection", r.Accepted)
	}
}

func TestOriginalDstOfBothLevels(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	apply(t, e, chain(env, "a"))
	out := env.Run("a", "python3", "testdata/original_dst.py", env.Cgroup("app"))
	for _, want := range []string{
		"::1 SOL_IPV6 28: ::1 8080 in 28", "::1 SOL_IPV6 128: ::1 8080 in 28", "::1 SOL_IPV6 27: EINVAL",
		"127.0.0.1 SOL_IP 16: 127.0.0.1 8080 in 16", "127.0.0.1 SOL_IP 128: 127.0.0.1 8080 in 16", "127.0.0.1 SOL_IP 15: EINVAL",
		"127.0.0.1 SOL_IPV6 28: ::ffff:127.0.0.1 8080 in 28",
		"::ffff:127.0.0.1 SOL_IP 16: 127.0.0.1 8080 in 16", "::ffff:127.0.0.1 SOL_IPV6 28: ::ffff:127.0.0.1 8080 in 28",
	} {
		if !strings.Contains(out, want+"\n") {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	// An IPv6 destination does not fit a sockaddr_in: the kernel's own answer stands.
	if strings.Contains(out, "\n::1 SOL_IP 16: ::1") || strings.Contains(out, "::1 SOL_IP 16: 0") {
		t.Errorf("an IPv6 destination at SOL_IP:\n%s", out)
	}
}

// TestSharedPort: a stranger that shares the proxy's port by SO_REUSEPORT may
// be given connections by the kernel, but never records.
func TestSharedPort(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	// Which of the two the connect hook finds depends on a hash of the address
	// and a secret of the kernel's. If it is the stranger, the provider is down.
	redirected := false
	for i := 1; i <= 20 && !redirected; i++ {
		p := chain(env, "a")
		p.Providers[0].Listen = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(i)}), 7001)
		apply(t, e, p)
		env.Start("a", "python3", "testdata/pass.py", env.Cgroup("stranger"), p.Providers[0].Listen.Addr().String())
		out := env.Run("app", "python3", "-c", `
import socket
for _ in range(60):
    with socket.create_connection(("127.0.0.1", 8080)) as s:
        s.sendall(b"GET / HTTP/1.0\r\n\r\n")
        try:
            print(s.recv(100).decode())
        except ConnectionResetError:
            print("reset")
`)
		redirected = strings.Contains(out, "provider ok")
		if strings.Contains(out, "stranger ok") {
			t.Errorf("records went to a stranger:\n%s", out)
		}
	}
	c := counters(t, e)
	if !redirected || c["intercepted"] == 0 || c["intercepted"]+c["arrived"] != c["redirected"] {
		t.Errorf("redirected %t; counters: %v", redirected, c)
	}
	waitFor(t, "nothing to be in flight", func() bool {
		n, err := e.InFlight()
		return err == nil && n == 0
	})
	checkNothingInFlight(t, e)
}

// TestListenerFromOutsideTheScope: such a socket accepts without our hooks,
// so connections to it would arrive without records.
func TestListenerFromOutsideTheScope(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	outside := testenv.New(t)
	outside.ShareNetNS(env)
	s := outside.Start("x", "python3", "testdata/reporter.py", "127.0.0.1", "7001")
	err := os.WriteFile(env.Cgroup("a")+"/cgroup.procs", []byte(strconv.Itoa(s.Cmd.Process.Pid)), 0)
	if err != nil {
		t.Fatal(err)
	}
	apply(t, e, chain(env, "a"))
	if got := runClient(t, env, "127.0.0.1"); got.Answer != answer {
		t.Errorf("client got %+v", got)
	}
	if c := counters(t, e); c["redirected"] != 0 || c["down_foreign_listener"] != 1 {
		t.Errorf("counters: %v", c)
	}
}

// TestMPTCPListener: Go's own listeners are MPTCP sockets. They are found
// whether they listened before Apply or after.
func TestMPTCPListener(t *testing.T) {
	for _, before := range []bool{true, false} {
		t.Run("before="+strconv.FormatBool(before), func(t *testing.T) {
			t.Parallel()
			env := testenv.New(t)
			e := open(t, env, engine.Options{})
			startOrigin(t, env)
			if !before {
				apply(t, e, chain(env, "a"))
			}
			env.StartCommand(roleCommand(env, "a", "go-listener", "127.0.0.1:7001"))
			if before {
				apply(t, e, chain(env, "a"))
			}
			if got := runClient(t, env, "127.0.0.1"); got.Answer != "127.0.0.1:8080" {
				t.Errorf("the proxy says the destination was %q (%+v)", got.Answer, got)
			}
		})
	}
}

// TestApplyHasNoGap: a proxy that listens all the time gets every connection,
// however often it is given to another provider.
func TestApplyHasNoGap(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	apply(t, e, chain(env, "a"))
	startReporter(env, "a", "127.0.0.1")
	done := make(chan string)
	go func() {
		out, err := env.TryRun("app", "python3", "-c", `
import socket
wrong = 0
for _ in range(2000):
    with socket.create_connection(("127.0.0.1", 8080)) as s:
        s.sendall(b"GET / HTTP/1.0\r\n\r\n")
        wrong += b'"hops": 1' not in s.recv(4096)
print(wrong)
`)
		done <- strings.TrimSpace(out) + errString(err)
	}()
	applied := 0
	for ; ; applied++ {
		select {
		case wrong := <-done:
			if wrong != "0" {
				t.Errorf("%s of 2000 connections missed the proxy during %d applies", wrong, applied)
			}
			if applied < 5 {
				t.Errorf("only %d applies", applied)
			}
			return
		default:
		}
		p := chain(env, "a")
		name := "a" + strconv.Itoa(applied)
		p.Providers[0].Name, p.Filters[0].Provider = name, name
		if err := e.Apply(p); err != nil {
			t.Fatal(err)
		}
	}
}

func errString(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestEqualWeights: of two providers of the same weight both see a flow, even
// if their proxies set no records.
func TestEqualWeights(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	p := chain(env, "a", "b")
	p.Providers[1].Weight = p.Providers[0].Weight
	apply(t, e, p)
	env.Start("a", "python3", "testdata/unaware.py", "127.0.0.1", "7001")
	env.Start("b", "python3", "testdata/unaware.py", "127.0.0.1", "7002")
	if got := runClient(t, env, "127.0.0.1"); got.Answer != answer {
		t.Errorf("client got %+v", got)
	}
	if c := counters(t, e); c["redirected"] != 2 || c["inherited"] != 2 {
		t.Errorf("counters: %v", c)
	}
}
