//go:build linux

package engine_test

import (
	"bytes"
	"net/netip"
	"os/exec"
	"strconv"
	"testing"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/testenv"
)

const flappingPort = originPort + 1

// TestFlappingProxy has a provider whose proxy comes and goes many times a
// second, before a steady one. What the steady one alone wants never fails;
// what both want is answered or reset, and nothing waits.
func TestFlappingProxy(t *testing.T) {
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	origin := startEchoOrigin(env)
	origin.listen(env, flappingPort)
	p := chain(env, "a", "b")
	p.Filters[0].Ports = []policy.PortRange{policy.Port(flappingPort)}
	p.Filters[1].Ports = append(p.Filters[1].Ports, policy.Port(flappingPort))
	apply(t, e, p)
	env.Start("a", "python3", "testdata/flap.py", "7001")
	startLoadProxies(env, "b")

	const n = 2000
	steady, flapping := startClientOf(t, env, originPort, n), startClientOf(t, env, flappingPort, n)
	if sum := steady.wait(t); sum.Arrived != n {
		t.Errorf("steady: %v", sum)
	}
	sum := flapping.wait(t)
	t.Logf("flapping: %v", sum)
	if sum.Arrived+sum.Reset+sum.Refused != n || sum.Arrived == 0 {
		t.Errorf("flapping: %v", sum)
	}
	counts, err := e.ProviderCounters()
	if err != nil || counts["b"].Bypassed != 0 || counts["a"].Bypassed == 0 || counts["a"].Redirected == 0 {
		t.Errorf("counters: %+v, %v", counts, err)
	}
	checkNothingInFlight(t, e)
}

// TestEverythingDead: with bypass, who is to inspect connections being dead
// keeps nobody from making them.
func TestEverythingDead(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	dir := env.StateDir()
	e := open(t, env, engine.Options{State: dir})
	startOrigin(t, env)
	apply(t, e, chain(env, "a", "b"))
	proxies := []*testenv.Server{startPython(env, "a", "127.0.0.1"), startPython(env, "b", "127.0.0.1")}
	want := clientReport{Peer: "192.0.2.1 8080", Answer: answer}
	if got := runClient(t, env, "192.0.2.1"); got != want {
		t.Errorf("with all alive the client got %+v", got)
	}
	if err := e.Close(); err != nil { // as the kernel closes it for a daemon that dies: the state is pinned
		t.Fatal(err)
	}
	for _, proxy := range proxies {
		proxy.Kill()
	}
	if got := runClient(t, env, "192.0.2.1"); got != want {
		t.Errorf("with all dead the client got %+v", got)
	}
	again := open(t, env, engine.Options{State: dir})
	if c := counters(t, again); c["redirected"] != 2 || c["bypassed"] != 2 {
		t.Errorf("counters: %v", c)
	}
}

// loadClient is a client with its summary.
type loadClient struct {
	cmd *exec.Cmd
	out bytes.Buffer
}

func startClientOf(t *testing.T, env *testenv.Env, port uint16, n int) *loadClient {
	t.Helper()
	address := netip.AddrPortFrom(testenv.Outside4, port).String()
	c := &loadClient{cmd: roleCommand(env, "app", "client", address, strconv.Itoa(n), "16")}
	c.cmd.Stdout = &c.out
	env.Inside(c.cmd.Start)
	return c
}

func (c *loadClient) wait(t *testing.T) clientSummary {
	t.Helper()
	if err := c.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	var sum clientSummary
	decode(t, c.out.String(), &sum)
	return sum
}
