//go:build linux

package interop

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/flow"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/supervise"
	"github.com/waybill-net/waybill/internal/testenv"
)

// forwarding is a chain of two for TCP and UDP: a forwarder that knows nothing
// of waybill and sends everything to one server, and our own proxy behind it.
type forwarding struct {
	t       *testing.T
	env     *testenv.Env
	engine  *engine.Engine
	journal *journal
	said    output
}

const (
	forwarder     = "forwarder"
	forwarderPort = 7001
	inspectPort   = 7002
)

// startForwarding starts the forwarder's program once the policy for this port
// is in force. It must listen on forwarderPort of TCP and UDP, at 127.0.0.1 and
// ::1.
func startForwarding(t *testing.T, port uint16, program string, args ...string) *forwarding {
	t.Helper()
	f := &forwarding{t: t, env: testenv.New(t)}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(f.said.String())
		}
	})
	var err error
	if f.engine, err = engine.Open(engine.Options{Scope: f.env.Scope}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.engine.Close() })
	f.journal = startJournal(t, f.engine)
	if err := f.engine.Apply(f.policy(port)); err != nil {
		t.Fatal(err)
	}
	f.start(forwarder, forwarderPort, program, args...)
	f.start("inspect", inspectPort, os.Args[0], inspectArgs(inspectPort)...)
	return f
}

// inspectArgs make this program our own proxy.
func inspectArgs(port uint16) []string {
	args := []string{"proxy"}
	for _, address := range listenAddresses(port) {
		args = append(args, address.String(), "udp:"+address.String())
	}
	return args
}

func listenAddresses(port uint16) [2]netip.AddrPort {
	return [2]netip.AddrPort{
		netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port),
		netip.AddrPortFrom(netip.IPv6Loopback(), port),
	}
}

func (f *forwarding) policy(port uint16) policy.Policy {
	var p policy.Policy
	for i, name := range []string{forwarder, "inspect"} {
		at := listenAddresses(forwarderPort + uint16(i))
		p.Providers = append(p.Providers, policy.Provider{
			Name: name, Weight: int32(-i), Cgroup: f.env.Cgroup(name),
			Listen: at[0], Listen6: at[1], UDP: at[0], UDP6: at[1],
		})
		p.Filters = append(p.Filters, policy.Filter{
			Provider: name, Protocols: []policy.Protocol{policy.TCP, policy.UDP}, Ports: []policy.PortRange{policy.Port(port)},
		})
	}
	return p
}

// start starts a proxy, waits until it listens, and stops it when the test ends.
func (f *forwarding) start(name string, port uint16, program string, args ...string) {
	f.t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		f.t.Fatal(err)
	}
	process, err := supervise.Start(supervise.Command{
		Name: name, Path: path, Args: args, Cgroup: f.env.Cgroup(name), NetNS: f.env.NetNS(), Output: &f.said,
		OnExit: func(exit string, _ time.Duration) { f.t.Errorf("%s ended: %s", name, exit) },
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		process.Stop(ctx)
	})
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for _, address := range listenAddresses(port) {
		if err := process.WaitListening(ctx, address); err != nil {
			f.t.Fatal(err)
		}
		if err := process.WaitReceiving(ctx, address); err != nil {
			f.t.Fatal(err)
		}
	}
}

// leg is one connection on the way to the server, as the kernel told of it.
func (f *forwarding) leg(e flow.Event) string {
	return fmt.Sprintf("%s hop %d %s %s %s", e.Process.Comm, e.Hop, e.Kind, e.Provider, e.Kinship)
}

// legs waits for n connections to an address and returns them, and the flows
// that they are of, in the order in which these began.
func (f *forwarding) legs(to netip.Addr, n int) (legs []string, flows []flow.ID) {
	var events []flow.Event
	for deadline := time.Now().Add(settleTime); len(events) < n && time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		events = f.journal.connects(to)
	}
	for _, e := range events {
		legs = append(legs, strings.TrimSpace(f.leg(e)))
		if !slices.Contains(flows, e.Flow) {
			flows = append(flows, e.Flow)
		}
	}
	return legs, flows
}

// checkCounters: every flow went through both proxies once, and nothing went
// wrong that no single flow shows.
func (f *forwarding) checkCounters(redirected, inherited int) {
	f.t.Helper()
	c, err := f.engine.Counters()
	if err != nil {
		f.t.Fatal(err)
	}
	if c["redirected"] != uint64(redirected) || c["inherited"] != uint64(inherited) {
		f.t.Errorf("%d were redirected and %d inherited, want %d and %d", c["redirected"], c["inherited"], redirected, inherited)
	}
	for _, name := range []string{"inherited_ambiguous", "lost", "looped", "blocked", "diverted", "intercepted", "events_lost", "unlisted"} {
		if c[name] != 0 {
			f.t.Errorf("counter %s is %d", name, c[name])
		}
	}
}
