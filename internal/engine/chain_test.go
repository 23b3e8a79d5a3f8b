package engine_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/testenv"
)

func TestPythonChain(t *testing.T) {
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	origin := startOrigin(t, "127.0.0.1")
	a, b := testenv.FreePort(t, "127.0.0.1"), testenv.FreePort(t, "127.0.0.1")
	apply(t, e, policy.Policy{
		Providers: []policy.Provider{
			{Name: "a", Weight: 2, Listen: a, Cgroup: env.Cgroup("a")},
			{Name: "b", Weight: 1, Listen: b, Cgroup: env.Cgroup("b")},
		},
		Filters: []policy.Filter{to("a", origin), to("b", origin)},
	})
	startPython(env, "a", a)
	startPython(env, "b", b)
	out := env.Run("app", "curl", "-sS", "-m", "5", "http://"+origin.String()+"/")
	t.Log(out)
	c, _ := e.Counters()
	t.Log(c)
	f, err := e.Flows()
	t.Log(f, err)
}

func startPython(env *testenv.Env, name string, a netip.AddrPort) *testenv.Server {
	return env.Start(name, "python3", "../../examples/python/proxy.py", a.Addr().String(), fmt.Sprint(a.Port()))
}

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

func to(provider string, dst netip.AddrPort) policy.Filter {
	return policy.Filter{
		Provider:    provider,
		Destination: []netip.Prefix{netip.PrefixFrom(dst.Addr(), dst.Addr().BitLen())},
		Ports:       []policy.PortRange{policy.Port(dst.Port())},
	}
}

func startOrigin(t *testing.T, ip string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 4096)
				n, _ := c.Read(buf)
				if strings.HasPrefix(string(buf[:n]), "GET ") {
					io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\nhello from the origin\n")
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}
