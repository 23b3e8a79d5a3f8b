//go:build linux

package engine_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/flow"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/testenv"
)

// TestInherit has a proxy that sets no records dial, and asks the next one
// what it sees: of which of the accepted connections the new one is the rest
// ("0", "1"), or that it began a flow with the history of one ("new of 0") or
// with none ("implied").
func TestInherit(t *testing.T) {
	for _, tt := range []struct {
		scenario string
		want     []string
	}{
		{"one", []string{"0"}},
		{"asked", []string{"0"}},
		{"two", []string{"new of 0", "1"}},
		{"two_asked", []string{"1", "0"}},
		{"again", []string{"0", "0"}},
		{"two_and_again", []string{"1", "0", "implied"}},
		{"elsewhere", []string{"implied"}},
		{"closed", []string{"implied"}},
		{"forwarded", []string{"0"}},
		{"forwarded_one_of_two", []string{"1"}},
		{"half_closed", []string{"0"}},
		{"reused", []string{"implied"}},
		{"same_socket", []string{"0"}},
		{"other_provider", []string{"0"}},
	} {
		t.Run(tt.scenario, func(t *testing.T) {
			t.Parallel()
			env := testenv.New(t)
			e := open(t, env, engine.Options{})
			startOrigin(t, env)
			apply(t, e, chain(env, "a", "b"))
			startReporter(env, "b", "127.0.0.1")
			var r struct{ Accepted, Dialled []report }
			decode(t, env.Run("a", "python3", "testdata/inherit.py", tt.scenario, env.Cgroup("app"), env.Cgroup("b")), &r)
			if got := descents(r.Accepted, r.Dialled); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			waitFor(t, "the candidates to go", func() bool {
				n, err := e.Candidates()
				return n == 0 && err == nil
			})
			checkNothingInFlight(t, e)
		})
	}
}

func descents(accepted, dialled []report) []string {
	var all []string
	for _, d := range dialled {
		what := "implied"
		for i, a := range accepted {
			switch {
			case d.Flow == a.Flow:
				what = fmt.Sprint(i)
			case d.TGID == a.TGID:
				what = fmt.Sprint("new of ", i)
			}
		}
		if d.Hops != 2 {
			what += fmt.Sprintf(" with %d hops", d.Hops)
		}
		all = append(all, what)
	}
	return all
}

// TestInheritedFlow: a chain whose middle proxy sets no records is one flow to
// whoever watches.
func TestInheritedFlow(t *testing.T) {
	for _, tt := range []struct{ name, host, proxy string }{
		{"IPv4", "192.0.2.1", "127.0.0.1"},
		{"IPv6", "2001:db8::1", "::1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			env := testenv.New(t)
			e := open(t, env, engine.Options{})
			events := readEvents(t, e)
			startOrigin(t, env)
			apply(t, e, chain(env, "a", "b", "c"))
			startPython(env, "a", tt.proxy)
			env.Start("b", "python3", "testdata/unaware.py", tt.proxy, "7002")
			startPython(env, "c", tt.proxy)
			if got := runClient(t, env, tt.host); got.Answer != answer {
				t.Fatalf("client got %+v", got)
			}
			f := events.flow(4)
			var way []string
			for i := range f.Hops {
				h := &f.Hops[i]
				way = append(way, fmt.Sprint(h.N, " ", h.Kind, " ", h.Provider, " ", h.State, " ", h.Kinship))
			}
			want := []string{
				"0 redirected a not-redirected ", "1 redirected b redirected-by-other ",
				"2 redirected c redirected-by-other inherited", "3 passed   ",
			}
			if !slices.Equal(way, want) {
				t.Errorf("flow\n%q, want\n%q", way, want)
			}
		})
	}
}

// flow reads events until a flow has as many hops, all of which must be its own.
func (r *eventReader) flow(hops int) flow.Flow {
	r.t.Helper()
	var f flow.Flow
	r.events.SetDeadline(time.Now().Add(10 * time.Second))
	for len(f.Hops) < hops {
		event, err := r.events.Read()
		if err != nil {
			r.t.Fatalf("wait for hop %d: %v", len(f.Hops), err)
		}
		if f.ID != 0 && event.Flow != f.ID {
			r.t.Fatalf("event of another flow: %+v", event)
		}
		f.Apply(event)
	}
	return f
}

// TestLinked: whoever watches is told which flows an ambiguous connection may
// be the rest of.
func TestLinked(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	events := readEvents(t, e)
	apply(t, e, chain(env, "a", "b"))
	startReporter(env, "b", "127.0.0.1")
	var r struct{ Accepted, Dialled []report }
	decode(t, env.Run("a", "python3", "testdata/inherit.py", "two", env.Cgroup("app")), &r)
	want := []flow.ID{flow.ID(r.Accepted[0].Flow), flow.ID(r.Accepted[1].Flow)}
	events.events.SetDeadline(time.Now().Add(10 * time.Second))
	for {
		event, err := events.events.Read()
		if err != nil {
			t.Fatal(err)
		}
		if event.Kind != flow.Linked {
			continue
		}
		if event.Flow != flow.ID(r.Dialled[0].Flow) || event.Provider != "a" || event.Hop != 1 || event.Candidates != 2 ||
			!slices.Contains(event.Links, want[0]) || !slices.Contains(event.Links, want[1]) {
			t.Errorf("event %+v, want links to %v", event, want)
		}
		return
	}
}

// TestBlockByOriginalProgramThroughUnawareProxy: a rule against a program also
// holds for what a proxy that sets no records opens for it.
func TestBlockByOriginalProgramThroughUnawareProxy(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	p := chain(env, "a")
	p.Filters = append(p.Filters, policy.Filter{
		Provider: "a", Action: policy.ActionBlock, States: []policy.State{policy.RedirectedBySelf},
		OriginalPrograms: []string{"/usr/bin/curl"}, Destination: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
	})
	apply(t, e, p)
	env.Start("a", "python3", "testdata/unaware.py", "127.0.0.1", "7001")
	if got := runClient(t, env, "192.0.2.1"); got.Answer != answer {
		t.Errorf("python got %+v", got)
	}
	if out, err := env.TryRun("app", "/usr/bin/curl", "-sS", "--max-time", "10", "http://192.0.2.1:8080/"); err == nil {
		t.Errorf("curl got %q", out)
	}
	if c := counters(t, e); c["forbidden"] != 1 || c["inherited"] != 2 {
		t.Errorf("counters: %v", c)
	}
}
