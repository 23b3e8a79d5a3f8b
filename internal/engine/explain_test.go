//go:build linux

package engine_test

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/flow"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/testenv"
)

// Of the 20 destinations that each client tries none comes twice, so that the
// process and the destination tell a connection from all others.
const (
	explainClients  = 50
	explainAttempts = 20
)

// TestExplain compares 1,000 random connections under a random policy with
// what policy.Explain says of them: every connect() of the chain, its verdict,
// provider, filter, state, who was skipped and why, and whether the client got
// its answer.
func TestExplain(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	w := newExplainWorld(t, env, func(*explainWorld) {})
	e := open(t, env, engine.Options{})
	apply(t, e, w.policy)
	w.startOrigins()
	proxies := w.startProxies()
	events, err := e.Events()
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()

	seen := make(coverage)
	for range explainClients {
		client, dsts := w.next()
		pid, results := w.try(client, dsts)
		ways := readWays(t, events, pid)
		for i, dst := range dsts {
			trial := policy.Trial{Dst: dst, Client: client, Proxies: proxies, Down: explainDown}
			seen.add(w.compare(trial, ways[dst], results[i]), w.filters)
			delete(ways, dst)
		}
		if len(ways) > 0 {
			t.Errorf("%+v has not asked for %v", client, ways)
		}
	}
	if n := counters(t, e)["events_lost"]; n > 0 {
		t.Errorf("%d events lost", n)
	}
	seen.check(t)
}

// compare explains a connection whose way and whose result are known.
func (w *explainWorld) compare(trial policy.Trial, way []string, result string) policy.Explanation {
	w.t.Helper()
	e, err := w.table.Explain(trial)
	if err != nil {
		w.t.Fatal(err)
	}
	if want := describeSteps(e); !slices.Equal(way, want) {
		w.t.Fatalf("%+v to %s\nkernel\n  %s\nexplained\n  %s", trial.Client, trial.Dst, strings.Join(way, "\n  "), strings.Join(want, "\n  "))
	}
	// A proxy to whom nothing was redirected has nowhere to go on to.
	arrives := e.Outcome == "passed" && e.Steps[0].DialsTo == ""
	if arrives != (result == "") {
		w.t.Errorf("%+v to %s: %s after %v, the client got %q", trial.Client, trial.Dst, e.Outcome, e.Proxies, result)
	}
	return e
}

// describeSteps gives the steps of which there are events.
func describeSteps(e policy.Explanation) []string {
	var steps []string
	for _, s := range e.Steps {
		if skipped, silent := skips(s); !silent {
			steps = append(steps, describe(s.Hop, s.Outcome, s.Provider, s.Filter, s.State, skipped))
		}
	}
	return steps
}

// skips lists who was skipped, as events do. It also reports whether there is
// no event at all: a program's connection went out and nobody would have had it.
func skips(s policy.Step) (skipped []string, silent bool) {
	silent = s.Hop == 0 && s.Outcome == "passed"
	for i, inquiry := range s.Inquiries {
		for _, a := range inquiry.Answers {
			if a.Effect == policy.Bypassed || a.Effect == policy.Shadowed {
				skipped = append(skipped, a.Provider+" "+string(a.Effect))
				silent = false
			}
			if a.Effect == policy.Excluded && i == len(s.Inquiries)-1 {
				skipped = append(skipped, a.Provider+" "+string(policy.Excluded))
				// A provider's process is known as such when a filter wants its connection.
				silent = silent && s.ProxyOf == ""
			}
		}
	}
	return sortedSet(skipped), silent
}

func describe(hop int, outcome, provider, filter, state string, skipped []string) string {
	return fmt.Sprintf("hop %d %s provider=%s filter=%s state=%s skipped=%q", hop, outcome, provider, filter, state, skipped)
}

func sortedSet(words []string) []string {
	slices.Sort(words)
	return slices.Compact(words)
}

// readWays reads all events so far and returns the steps of each connection
// of a process, by destination. The process makes one at a time, and nobody
// else makes any: what follows belongs to it, whatever flow it says.
func readWays(t *testing.T, events *engine.Events, pid int) map[netip.AddrPort][]string {
	t.Helper()
	ways := make(map[netip.AddrPort][]string)
	var dst netip.AddrPort
	events.SetDeadline(time.Now())
	for {
		e, err := events.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return ways
		}
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == flow.Accepted || e.Kind == flow.Closed {
			continue
		}
		if e.Process.PID == uint32(pid) {
			dst = e.Dst
		}
		var skipped []string
		for _, s := range e.Skipped {
			skipped = append(skipped, s.Provider+" "+string(s.Reason))
		}
		ways[dst] = append(ways[dst], describe(e.Hop, string(e.Kind), e.Provider, e.Filter, e.State, sortedSet(skipped)))
	}
}

// coverage counts what came up.
type coverage map[string]int

func (c coverage) add(e policy.Explanation, filters map[string]policy.Filter) {
	c[fmt.Sprintf("%d proxies", len(e.Proxies))]++
	for _, s := range e.Steps {
		c[s.Outcome]++
		if s.ProxyOf != "" && s.Hop == 0 {
			c["implied "+s.Outcome]++
		}
		for _, inquiry := range s.Inquiries {
			for _, a := range inquiry.Answers {
				c["effect "+string(a.Effect)]++
			}
		}
		if f, ok := filters[s.Filter]; ok {
			c.addConditions(f)
		}
	}
}

// addConditions counts what the filters that decided have asked.
func (c coverage) addConditions(f policy.Filter) {
	for name, n := range map[string]int{
		"destination": len(f.Destination), "not-destination": len(f.NotDestination), "port": len(f.Ports),
		"program": len(f.Programs), "original-program": len(f.OriginalPrograms), "user": len(f.Users),
		"cgroup": len(f.Cgroups), "original-cgroup": len(f.OriginalCgroups), "state": len(f.States),
	} {
		if n > 0 {
			c["by "+name]++
		}
	}
}

func (c coverage) check(t *testing.T) {
	t.Helper()
	for _, what := range slices.Sorted(maps.Keys(c)) {
		t.Logf("%6d %s", c[what], what)
	}
	for _, what := range []string{
		"passed", "redirected", "refused", "forbidden", "0 proxies", "1 proxies", "2 proxies", "3 proxies",
		"implied passed", "implied redirected", "effect permits", "effect down", "effect shadow", "effect state", "by destination", "by not-destination",
		"by port", "by program", "by original-program", "by user", "by cgroup", "by original-cgroup", "by state",
	} {
		if c[what] < 20 {
			t.Errorf("%s came up only %d times: the input is not random enough", what, c[what])
		}
	}
}
