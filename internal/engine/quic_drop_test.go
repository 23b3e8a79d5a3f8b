//go:build linux

package engine_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/flow"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/testenv"
)

// dropClients make 20 attempts each, as those of TestExplain do.
const dropClients = 50

// explainNames are what the tests tell of some of the addresses.
var explainNames = map[netip.Addr][]string{
	testenv.Outside4:                     {"www.example.org", "cdn.example.net"},
	netip.MustParseAddr("192.0.2.2"):     {"example.org"},
	netip.MustParseAddr("2001:db8::2"):   {"a.b.example.org"},
	netip.MustParseAddr("127.0.0.9"):     {"local.example.net"},
	netip.MustParseAddr("198.51.100.77"): {"elsewhere.example.org"},
}

// TestQUICDropped compares, for random connections under a random policy, what
// becomes of TCP and of UDP to the same destination: UDP is refused for exactly
// those of which the kernel has given TCP, or that of a proxy on its way, to a
// provider by a filter that drops QUIC. Where another filter forbids TCP the twin
// decides. Some of the filters ask for names as well.
func TestQUICDropped(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	w := newExplainWorld(t, env, dropAndName)
	e := open(t, env, engine.Options{})
	for addr, names := range explainNames {
		if err := e.SetNames(addr, names); err != nil {
			t.Fatal(err)
		}
	}
	apply(t, e, w.policy)
	w.startOrigins()
	proxies := w.startProxies()
	events, err := e.Events()
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()

	seen := make(map[string]int)
	dropped := 0
	for range dropClients {
		client, dsts := w.next()
		pid, results := w.try(client, dsts)
		ways := readWays(t, events, pid)
		var refusals []datagramRefusals
		pid = w.play("datagrams", client, dsts, &refusals)
		drops := readWays(t, events, pid)
		for i, dst := range dsts {
			trial := policy.Trial{Dst: dst, Names: explainNames[dst.Addr()], Client: client, Proxies: proxies, Down: explainDown}
			tcp := w.compare(trial, ways[dst], results[i])
			trial.Protocol = policy.UDP
			udp, err := w.table.Explain(trial)
			if err != nil {
				t.Fatal(err)
			}
			want := udp.Outcome == policy.DropQUIC.String()
			if captured, known := isCaptured(w, tcp); known && captured != want {
				t.Errorf("%+v to %s: TCP %v, UDP %s", client, dst, ways[dst], udp.Outcome)
			}
			if got := refusals[i]; got.Connected != want || got.Unconnected != want {
				t.Errorf("%+v to %s: refused %+v; TCP is %s, UDP is to be %s", client, dst, got, tcp.Outcome, udp.Outcome)
			}
			if want {
				dropped += 2 // connected and not
				told := describe(0, udp.Outcome, udp.Steps[0].Provider, udp.Steps[0].Filter, udp.Steps[0].State, nil)
				if !slices.ContainsFunc(drops[dst], func(s string) bool { return strings.HasPrefix(s, strings.TrimSuffix(told, "[]")) }) {
					t.Errorf("%s: told %q, want %s", dst, drops[dst], told)
				}
			}
			seen["TCP "+tcp.Steps[0].Outcome+", UDP "+udp.Outcome]++
			if f := w.filters[tcp.Steps[0].Filter]; want && !f.DropQUIC {
				seen["dropped for a later proxy"]++
			}
			if f := w.filters[tcp.Steps[0].Filter]; len(f.Domains) > 0 {
				seen["by name"]++
			}
		}
	}
	if got := counters(t, e)["quic_dropped"]; got != uint64(dropped) {
		t.Errorf("counted %d dropped, want %d", got, dropped)
	}
	for _, what := range slices.Sorted(maps.Keys(seen)) {
		t.Logf("%6d %s", seen[what], what)
	}
	for _, what := range []string{
		"TCP redirected, UDP quic-dropped", "TCP redirected, UDP passed", "TCP passed, UDP passed", "dropped for a later proxy", "by name",
	} {
		if seen[what] < 10 {
			t.Errorf("%s came up only %d times: the input is not random enough", what, seen[what])
		}
	}
}

// isCaptured reports whether a filter that drops QUIC gets one of the
// connections of a chain that is what the kernel has made. That is not known if
// another filter forbids one of them.
func isCaptured(w *explainWorld, tcp policy.Explanation) (captured, known bool) {
	if tcp.Outcome == policy.Forbid.String() {
		return false, false
	}
	return slices.ContainsFunc(tcp.Steps, func(s policy.Step) bool { return w.filters[s.Filter].DropQUIC }), true
}

// dropAndName makes some filters drop QUIC, and some ask for names.
func dropAndName(w *explainWorld) {
	patterns := []string{"example.org", "*.example.org", "cdn.example.net", "*.example.net", "example.com"}
	for i := range w.policy.Filters {
		f := &w.policy.Filters[i]
		// What a filter knows of a proxy that has not connected yet is little.
		f.Programs, f.Users, f.Cgroups, f.States = nil, nil, nil, nil
		f.DropQUIC = f.Action == policy.ActionRedirect && len(f.Ports) > 0 && w.rng.IntN(2) == 0
		if f.Action == policy.ActionBlock && w.rng.IntN(8) > 0 {
			f.Action = policy.ActionPermit // most connections are to get somewhere
		}
		if w.rng.IntN(4) == 0 {
			f.Domains = []string{patterns[w.rng.IntN(len(patterns))]}
		}
	}
}

// datagramRefusals says whether UDP to a destination was refused with EACCES.
type datagramRefusals struct{ Connected, Unconnected bool }

func playDatagrams(addresses []string) error {
	results := make([]datagramRefusals, len(addresses))
	for i, address := range addresses {
		var err error
		if results[i].Connected, err = isRefused(net.Dial("udp", address)); err != nil {
			return err
		}
		if results[i].Unconnected, err = isRefused(sendTo(address)); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(results)
}

func sendTo(address string) (net.Conn, error) {
	to, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, err
	}
	c, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, err
	}
	_, err = c.WriteTo([]byte("hello"), to)
	return c, err
}

func isRefused(c net.Conn, err error) (bool, error) {
	if errors.Is(err, syscall.EACCES) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("unexpected refusal: %w", err)
	}
	return false, c.Close()
}

// TestQUICDroppedLater: what is told of UDP that the second proxy of a chain
// would get as TCP is told of the program. Whom that TCP would have gone past is
// neither told nor counted: nobody has asked for it.
func TestQUICDroppedLater(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	p := chain(env, "a", "b", "c", "d", "e") // d is down
	p.Providers[0].Shadow, p.Providers[2].Shadow = true, true
	p.Filters[4].DropQUIC = true
	apply(t, e, p)
	for _, i := range []int{1, 4} {
		provider := p.Providers[i]
		env.StartCommand(roleCommand(env, provider.Name, "proxy", provider.Listen.String(), provider.Listen6.String()))
	}
	events := readEvents(t, e)
	dst := net.JoinHostPort(testenv.Outside4.String(), fmt.Sprint(originPort))
	var refusals []datagramRefusals
	var out []byte
	env.Inside(func() (err error) {
		out, err = roleCommand(env, "app", "datagrams", dst).Output()
		return err
	})
	decode(t, string(out), &refusals)
	if want := []datagramRefusals{{true, true}}; !slices.Equal(refusals, want) {
		t.Errorf("refused %+v", refusals)
	}
	for range 2 {
		event := events.next(flow.QUICDropped)
		if event.Provider != "e" || event.Hop != 0 || event.Kinship != "" || event.Process.PID == 0 || len(event.Skipped) > 0 {
			t.Errorf("got %+v", event)
		}
	}
	c := counters(t, e)
	if c["quic_dropped"] != 2 || c["shadowed"] != 0 || c["bypassed"] != 0 {
		t.Errorf("counted %v", c)
	}
}
