//go:build linux

package engine_test

import (
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/testenv"
)

// Every test has a network namespace of its own, so the addresses are fixed.
// Provider a listens on port 7001, b on 7002 and so on; the origin on 8080.
const originPort = 8080

// answer is what the origin says to whoever reaches it.
const answer = "hello from the origin"

func open(t *testing.T, env *testenv.Env, opts engine.Options) *engine.Engine {
	t.Helper()
	opts.Scope = env.Scope
	e, err := engine.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func apply(t *testing.T, e *engine.Engine, p policy.Policy) {
	t.Helper()
	if err := e.Apply(p); err != nil {
		t.Fatal(err)
	}
}

// provider returns the provider with this name, the heavier the earlier in
// the alphabet.
func provider(env *testenv.Env, name string) policy.Provider {
	i := uint16(name[0] - 'a')
	return policy.Provider{
		Name:    name,
		Weight:  100 - int32(i),
		Listen:  netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 7001+i),
		Listen6: netip.AddrPortFrom(netip.IPv6Loopback(), 7001+i),
		Cgroup:  env.Cgroup(name),
	}
}

// toOrigin is a filter that sends connections to the origin, on whatever
// address, to a provider.
func toOrigin(provider string) policy.Filter {
	return policy.Filter{
		Provider: provider,
		Destination: []netip.Prefix{
			netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("127.0.0.0/8"),
			netip.MustParsePrefix("::/0"), netip.MustParsePrefix("::1/128"),
		},
		Ports: []policy.PortRange{policy.Port(originPort)},
	}
}

// chain is a policy of providers that all want what goes to the origin.
func chain(env *testenv.Env, names ...string) policy.Policy {
	var p policy.Policy
	for _, name := range names {
		p.Providers = append(p.Providers, provider(env, name))
		p.Filters = append(p.Filters, toOrigin(name))
	}
	return p
}

// startOrigin answers on all addresses.
func startOrigin(t *testing.T, env *testenv.Env) {
	t.Helper()
	l := env.Listen(net.JoinHostPort("::", strconv.Itoa(originPort)))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serveOrigin(c)
		}
	}()
}

func serveOrigin(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 4096)
	n, _ := c.Read(buf)
	if strings.HasPrefix(string(buf[:n]), "GET ") {
		io.WriteString(c, answer)
	}
}

// startPython starts the Python proxy on an address as provider name.
func startPython(env *testenv.Env, name, address string) *testenv.Server {
	port := strconv.Itoa(7001 + int(name[0]-'a'))
	return env.Start(name, "python3", "../../examples/python/proxy.py", address, port)
}

// clientReport is what testdata/client.py prints.
type clientReport struct{ Peer, Answer, Error string }

func runClient(t *testing.T, env *testenv.Env, host string) clientReport {
	t.Helper()
	var r clientReport
	decode(t, env.Run("app", "python3", "testdata/client.py", host, strconv.Itoa(originPort)), &r)
	return r
}

func decode(t *testing.T, line string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(line), v); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
}

// counters returns the counters that are not zero.
func counters(t *testing.T, e *engine.Engine) map[string]uint64 {
	t.Helper()
	all, err := e.Counters()
	if err != nil {
		t.Fatal(err)
	}
	some := make(map[string]uint64)
	for name, n := range all {
		if n > 0 {
			some[name] = n
		}
	}
	return some
}

func TestChain(t *testing.T) {
	for _, tt := range []struct{ name, host, proxy, peer string }{
		{"IPv4", "127.0.0.1", "127.0.0.1", "127.0.0.1 8080"},
		{"IPv4 outside", "192.0.2.1", "127.0.0.1", "192.0.2.1 8080"},
		{"IPv6", "::1", "::1", "::1 8080"},
		{"IPv6 outside", "2001:db8::1", "::1", "2001:db8::1 8080"},
		{"IPv4-mapped", "::ffff:127.0.0.1", "127.0.0.1", "::ffff:127.0.0.1 8080"},
		{"IPv4-mapped outside", "::ffff:192.0.2.1", "127.0.0.1", "::ffff:192.0.2.1 8080"},
		{"dual-stack proxy", "192.0.2.1", "::", "192.0.2.1 8080"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			env := testenv.New(t)
			e := open(t, env, engine.Options{})
			startOrigin(t, env)
			apply(t, e, chain(env, "a", "b"))
			startPython(env, "a", tt.proxy)
			startPython(env, "b", tt.proxy)

			want := clientReport{Peer: tt.peer, Answer: answer}
			if got := runClient(t, env, tt.host); got != want {
				t.Errorf("client got %+v, want %+v", got, want)
			}
			c := counters(t, e)
			if c["redirected"] != 2 || c["arrived"] != 2 || c["set"] != 2 || c["passed"] != 1 {
				t.Errorf("counters: %v", c)
			}
		})
	}
}
