//go:build linux

package engine_test

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/testenv"
)

func TestContext(t *testing.T) {
	for _, size := range []int{1, 5, 1023, policy.MaxContext} {
		t.Run(strconv.Itoa(size), func(t *testing.T) {
			t.Parallel()
			env := testenv.New(t)
			e := open(t, env, engine.Options{})
			startOrigin(t, env)
			p := chain(env, "a", "b")
			p.Filters[0].Context = []byte(strings.Repeat("x", size-1) + "y")
			p.Filters[1].Context = []byte("for b")
			apply(t, e, p)
			var r struct{ Own, Other, Admin, Nobody string }
			decode(t, env.Run("a", "python3", "testdata/context.py", env.Cgroup("app"), env.Cgroup("b")), &r)
			own := string(p.Filters[0].Context)
			if r.Own != own || r.Other != "ENODATA" || r.Admin != own || r.Nobody != "ENODATA" {
				t.Errorf("context: %+v", r)
			}
		})
	}
}

// TestContextOfEachProvider: in a chain, every proxy reads its own context.
func TestContextOfEachProvider(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	p := chain(env, "a", "b")
	p.Filters[0].Context, p.Filters[1].Context = []byte("for a"), []byte("for b")
	apply(t, e, p)
	startReporter(env, "b", "127.0.0.1")
	var r report
	decode(t, env.Run("a", "python3", "testdata/connects.py", "plain", env.Cgroup("app")), &r)
	if r.Context != "for b" {
		t.Errorf("b read %q", r.Context)
	}
	// Without a context, the next policy leaves none behind on the way.
	p.Filters[1].Context = nil
	apply(t, e, p)
	decode(t, env.Run("a", "python3", "testdata/connects.py", "plain", env.Cgroup("app")), &r)
	if r.Context != "ENODATA" {
		t.Errorf("b read %q, want ENODATA", r.Context)
	}
}

// TestHeaviestFilterGivesTheContext has two filters that match.
func TestHeaviestFilterGivesTheContext(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	p := chain(env, "a")
	light, heavy := toOrigin("a"), toOrigin("a")
	light.Context, heavy.Context, heavy.Weight = []byte("light"), []byte("heavy"), 1
	p.Filters = []policy.Filter{light, heavy}
	apply(t, e, p)
	startReporter(env, "a", "127.0.0.1")
	var r report
	decode(t, env.Run("app", "python3", "testdata/connects.py", "plain"), &r)
	if r.Context != "heavy" {
		t.Errorf("a read %q, want that of the heaviest filter", r.Context)
	}
}

// TestProxyWithoutRecords: a proxy that never sets records is not sent its
// own connections, and those of the next one do not come back to it.
func TestProxyWithoutRecords(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	apply(t, e, chain(env, "a", "b"))
	startReporter(env, "a", "127.0.0.1")
	startReporter(env, "b", "127.0.0.1")
	var r report
	// From a's cgroup, without records: b's turn. From b's: nobody's.
	decode(t, env.Run("a", "python3", "testdata/connects.py", "plain"), &r)
	checkReport(t, r, 2) // the implied hop of a, and b's
	var c clientReport
	decode(t, env.Run("b", "python3", "testdata/client.py", "127.0.0.1", "8080"), &c)
	if c.Answer != answer {
		t.Errorf("from b: %+v", c)
	}
}

// TestDialProxyDirectly: who dials a proxy's own address gets it, without
// records, and is not redirected to it.
func TestDialProxyDirectly(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	p := chain(env, "a")
	p.Filters[0].Ports = nil
	apply(t, e, p)
	startReporter(env, "a", "127.0.0.1")
	for _, host := range []string{"127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1"} {
		out := env.Run("app", "python3", "-c", `
import socket, sys
print(socket.create_connection((sys.argv[1], 7001)).recv(4096).decode())
`, host)
		var r report
		decode(t, out, &r)
		if r.Hops != 0 || r.State != notRedirected {
			t.Errorf("%s: proxy saw %+v", host, r)
		}
	}
}

func TestApplyKeepsOldPolicyOnError(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	good := chain(env, "a")
	apply(t, e, good)
	startReporter(env, "a", "127.0.0.1")

	for _, tt := range []struct {
		name string
		bad  func(*policy.Policy)
		want string
	}{
		{"cgroup that is none", func(p *policy.Policy) { p.Providers[0].Cgroup = "/dev" }, "not below"},
		{"cgroup outside the scope", func(p *policy.Policy) { p.Providers[0].Cgroup = filepath.Dir(env.Scope) }, "not below the scope"},
		{"cgroup is the scope", func(p *policy.Policy) { p.Providers[0].Cgroup = env.Scope }, "not below the scope"},
		{"cgroups overlap", func(p *policy.Policy) {
			p.Providers = append(p.Providers, provider(env, "b"))
			p.Providers[1].Cgroup = env.Cgroup("a/inner")
		}, "overlap"},
		{"filter of nobody", func(p *policy.Policy) { p.Filters[0].Provider = "z" }, `no provider "z"`},
	} {
		p := chain(env, "a")
		tt.bad(&p)
		err := e.Apply(p)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
	var r report
	decode(t, env.Run("app", "python3", "testdata/connects.py", "plain"), &r)
	checkReport(t, r, 1)
}

// TestApplyRepeatedly: connections that are open stay as they are, new ones
// follow the newest policy.
func TestApplyRepeatedly(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	startReporter(env, "a", "127.0.0.1")
	for range 3 {
		apply(t, e, chain(env, "a"))
		apply(t, e, chain(env, "a"))
		var r report
		decode(t, env.Run("app", "python3", "testdata/connects.py", "plain"), &r)
		checkReport(t, r, 1)
		apply(t, e, policy.Policy{})
		if got := runClient(t, env, "127.0.0.1"); got.Answer != answer {
			t.Errorf("with no policy, the client got %+v", got)
		}
	}
}

func TestFlows(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	l := env.Listen("127.0.0.1:8080")
	apply(t, e, chain(env, "a", "b"))
	startPython(env, "a", "127.0.0.1")
	startPython(env, "b", "127.0.0.1")
	client := env.Command("app", "python3", "-c", `
import socket, sys
s = socket.create_connection(("127.0.0.1", 8080))
print("ready", flush=True)
s.recv(1)
`)
	server := env.StartCommand(client)
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	flows, err := flowsIn(env, e)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range flows {
		var hops []string
		for _, h := range f.Hops {
			hops = append(hops, h.Provider)
			if h.Dst != netip.MustParseAddrPort("127.0.0.1:8080") || h.Time == 0 || h.Implied {
				t.Errorf("hop %+v", h)
			}
		}
		got = append(got, string(f.Role)+" "+f.Remote.String()+" "+strings.Join(hops, ","))
		if f.ID != flows[0].ID || f.State != "established" || f.Origin.Comm != "python3" || f.Origin.TGID != uint32(server.Cmd.Process.Pid) {
			t.Errorf("flow %+v", f)
		}
		if f.Role == engine.Accepted {
			got[len(got)-1] = "accepted " + f.Local.String() + " " + strings.Join(hops, ",")
		}
	}
	slices.Sort(got)
	want := []string{
		"accepted 127.0.0.1:7001 a", "accepted 127.0.0.1:7002 a,b",
		"connects 127.0.0.1:7001 a", "connects 127.0.0.1:7002 a,b", "connects 127.0.0.1:8080 a,b",
	}
	if !slices.Equal(got, want) {
		t.Errorf("flows\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	conn.Close()
	server.Kill()
	waitFor(t, "sockets to be gone", func() bool {
		flows, err = flowsIn(env, e)
		return err == nil && len(flows) == 0
	})
}

// flowsIn lists the flows of a test's network namespace.
func flowsIn(env *testenv.Env, e *engine.Engine) (flows []engine.Flow, err error) {
	env.Inside(func() error {
		flows, err = e.Flows()
		return nil
	})
	return flows, err
}

// waitFor polls for something that the kernel does in its own time.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited 10 s for %s", what)
		}
	}
}

// TestNetworkNamespaces has the same addresses and ports in two namespaces at
// once: one provider, a proxy in each. One connection is held in flight while
// the other comes and goes.
func TestNetworkNamespaces(t *testing.T) {
	t.Parallel()
	one, two := testenv.New(t), testenv.New(t)
	two.Join(one)
	e := open(t, one, engine.Options{})
	startOrigin(t, one)
	startOrigin(t, two)
	apply(t, e, chain(one, "a"))
	startReporter(one, "a", "127.0.0.1")
	deliver := one.DropPacketsTo(7001)
	two.Start("a", "python3", "testdata/reporter.py", "127.0.0.1", "7001")

	held := one.Start("app", "python3", "testdata/held.py")
	var first, second report
	decode(t, two.Run("app", "python3", "-c", `
import socket
s = socket.socket()
s.bind(("127.0.0.1", 40000))
s.connect(("127.0.0.1", 8080))
print(s.recv(4096).decode())
`), &second)
	deliver()
	decode(t, held.Wait(), &first)
	checkReport(t, first, 1)
	checkReport(t, second, 1)
	if first.NetNS == second.NetNS || first.NetNS == 0 || first.Flow == second.Flow {
		t.Errorf("namespace %d, flow %d; namespace %d, flow %d", first.NetNS, first.Flow, second.NetNS, second.Flow)
	}
	checkNothingInFlight(t, e)
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		opts engine.Options
		want string
	}{
		{"no cgroup", engine.Options{Scope: "/nowhere"}, "/nowhere"},
		{"not a cgroup", engine.Options{Scope: t.TempDir()}, "cgroup v2"},
		{"negative limit", engine.Options{Scope: "/", InFlight: -1}, "-1"},
	} {
		_, err := engine.Open(tt.opts)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
}
