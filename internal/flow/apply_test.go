package flow_test

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/flow"
)

var (
	start  = time.Date(2026, 8, 2, 18, 41, 58, 123e6, time.UTC)
	origin = netip.MustParseAddrPort("93.184.216.34:443")
	curl   = flow.Process{PID: 4711, UID: 1000, Comm: "curl", Start: time.Hour, Device: 0x800001, Inode: 77}
)

const id = flow.ID(0xf3a9c1d2e4b567)

// at returns an event so many microseconds after the start of the flow.
func at(us int, hop int, e flow.Event) flow.Event {
	e.Time, e.Flow, e.Hop = start.Add(time.Duration(us)*time.Microsecond), id, hop
	return e
}

// chain is a flow through two proxies, with one that is down.
func chain() []flow.Event {
	adblock := flow.Process{PID: 812, UID: 990, Comm: "mitmdump"}
	dlp := flow.Process{PID: 901, UID: 991, Comm: "dlpd"}
	return []flow.Event{
		at(0, 0, flow.Event{
			Kind: flow.Redirected, Provider: "adblock", Filter: "web", State: "not-redirected", Dst: origin, Process: curl,
			Skipped: []flow.Skip{{Provider: "parental", Reason: flow.SkipDown}},
		}),
		at(41, 0, flow.Event{Kind: flow.Accepted, Provider: "adblock"}),
		at(253, 1, flow.Event{
			Kind: flow.Redirected, Provider: "dlp", Filter: "everything", State: "redirected-by-other", Dst: origin, Process: adblock,
			Skipped: []flow.Skip{{Provider: "adblock", Reason: flow.SkipState}},
		}),
		at(305, 1, flow.Event{Kind: flow.Accepted, Provider: "dlp"}),
		at(403, 2, flow.Event{Kind: flow.Passed, Dst: origin, Process: dlp, Skipped: []flow.Skip{{Provider: "audit", Reason: flow.SkipShadow}}}),
		at(1_209_000, 2, flow.Event{Kind: flow.Closed, Duration: 1_208_597 * time.Microsecond, Sent: 1300, Received: 34600}),
		at(1_209_500, 1, flow.Event{Kind: flow.Closed, Provider: "dlp", Duration: 1_209_247 * time.Microsecond, Sent: 1200, Received: 34500}),
		at(1_210_000, 0, flow.Event{Kind: flow.Closed, Provider: "adblock", Duration: 1_210_000 * time.Microsecond, Sent: 1200, Received: 34500}),
	}
}

func assemble(events ...flow.Event) flow.Flow {
	var f flow.Flow
	for _, e := range events {
		f.Apply(e)
	}
	return f
}

func TestChain(t *testing.T) {
	f := assemble(chain()...)
	if f.ID != id || !f.Start.Equal(start) || f.Outcome != flow.Done || f.Process.PID != 4711 || f.Dst != origin || len(f.Hops) != 3 {
		t.Errorf("got %+v", f)
	}
	for _, tt := range []struct {
		what      string
		got, want time.Duration
	}{
		{"duration", f.Duration(), 1_210_000 * time.Microsecond},
		{"handshake with adblock", f.Hops[0].Handshake(), 41 * time.Microsecond},
		{"handshake with dlp", f.Hops[1].Handshake(), 52 * time.Microsecond},
		{"handshake of the last leg, which nobody reports", f.Hops[2].Handshake(), 0},
		{"added before the application", f.Added(0), 0},
		{"added by adblock", f.Added(1), 212 * time.Microsecond},
		{"added by dlp", f.Added(2), 98 * time.Microsecond},
		{"added by nobody", f.Added(3), 0},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.what, tt.got, tt.want)
		}
	}
	if sent, received, known := f.Bytes(); sent != 1200 || received != 34500 || !known {
		t.Errorf("bytes: got %d sent, %d received", sent, received)
	}
}

func TestOutcome(t *testing.T) {
	events := chain()
	denied := func(kind flow.Kind) []flow.Event {
		return []flow.Event{at(0, 0, flow.Event{Kind: kind, Provider: "dlp", Dst: origin, Process: curl})}
	}
	reset := at(9, 0, flow.Event{Kind: flow.Closed, Duration: 9 * time.Microsecond, Error: "connection refused"})
	for _, tt := range []struct {
		name   string
		events []flow.Event
		want   flow.Outcome
		ended  bool
	}{
		{"connecting", events[:1], flow.Open, false},
		{"the destination has closed", events[:6], flow.Open, false},
		{"closed", events, flow.Done, true},
		{"the outcomes were lost", []flow.Event{events[7]}, flow.Done, true},
		{"forbidden", denied(flow.Forbidden), flow.WasForbidden, true},
		{"refused", denied(flow.Refused), flow.WasRefused, true},
		{"looped", denied(flow.Looped), flow.WasLooped, true},
		{"forbidden to the proxy", append(events[:2:2], at(50, 1, flow.Event{Kind: flow.Forbidden, Provider: "dlp"})), flow.WasForbidden, false},
		{"failed", []flow.Event{reset}, flow.Failed, true},
	} {
		f := assemble(tt.events...)
		if f.Outcome != tt.want || f.End.IsZero() == tt.ended {
			t.Errorf("%s: got %s, end %v; want %s", tt.name, f.Outcome, f.End, tt.want)
		}
	}
}

// TestAnyOrder: events that are shuffled, repeated and lost make the flow that
// those of them that are left make in order.
func TestAnyOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		var left []flow.Event
		for _, e := range append(chain(), retry()...) {
			if rng.IntN(5) > 0 {
				left = append(left, e)
			}
		}
		want := assemble(left...)
		shuffled := append(slices.Clone(left), left[:len(left)/2]...)
		rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if got := assemble(shuffled...); !reflect.DeepEqual(got, want) {
			t.Fatalf("from %+v\ngot  %+v\nwant %+v", shuffled, got, want)
		}
		for _, e := range left {
			if want.Apply(e) {
				t.Fatalf("%+v was news twice", e)
			}
		}
	}
}

// retry has two more tries of the last proxy: one that is refused within
// microseconds, and one that stays.
func retry() []flow.Event {
	other := netip.MustParseAddrPort("[2001:db8::1]:443")
	return []flow.Event{
		at(1000, 3, flow.Event{Kind: flow.Passed, Dst: other}),
		at(1040, 3, flow.Event{Kind: flow.Closed, Duration: 40 * time.Microsecond, Error: "connection refused"}),
		at(1100, 3, flow.Event{Kind: flow.Redirected, Provider: "late", Dst: origin}),
		at(1150, 3, flow.Event{Kind: flow.Accepted, Provider: "late"}),
	}
}

func TestNewestTryCounts(t *testing.T) {
	f := assemble(retry()...)
	if h := f.Hops[0]; h.Error != "" || !h.Closed.IsZero() || h.Dst != origin || h.Handshake() != 50*time.Microsecond {
		t.Errorf("the second try is open, got %+v", h)
	}
	// An earlier try that lasts longer does not end the newer one.
	f = assemble(append(retry(), at(900_000, 3, flow.Event{Kind: flow.Closed, Duration: 950 * time.Millisecond, Error: "old"}))...)
	if f.Outcome != flow.Open {
		t.Errorf("an older try ended the newer: %+v", f.Hops[0])
	}
}

func TestNoNews(t *testing.T) {
	f := assemble(chain()...)
	want := assemble(chain()...)
	for _, e := range []flow.Event{
		{},
		{Kind: flow.Closed, Time: start, Flow: id + 1},
		{Kind: flow.Closed, Time: start, Flow: id, Hop: -1},
		{Kind: "unheard-of", Time: start.Add(time.Hour), Flow: id},
		{Kind: flow.Accepted, Flow: id},
	} {
		if f.Apply(e) || !reflect.DeepEqual(f, want) {
			t.Errorf("%+v was news", e)
		}
	}
}

func TestNoNewsForEmptyFlow(t *testing.T) {
	var f flow.Flow
	if f.Apply(flow.Event{Kind: "unheard-of", Time: start, Flow: id + 1}) || f.ID != 0 {
		t.Errorf("got %+v", f)
	}
	if !f.Apply(chain()[0]) || f.ID != id {
		t.Errorf("got %+v", f)
	}
}

func TestImpliedOrigin(t *testing.T) {
	proxy := flow.Process{PID: 5, Comm: "proxy"}
	f := assemble(at(0, 2, flow.Event{Kind: flow.Passed, Kinship: flow.Implied, Process: proxy, Dst: origin}))
	if f.Process.PID != 5 || f.Dst != origin {
		t.Errorf("a connection without records starts at its own process: got %+v", f)
	}
	f = assemble(at(0, 2, flow.Event{Kind: flow.Passed, Process: proxy, Dst: origin}))
	if f.Process.PID != 0 || f.Dst != origin {
		t.Errorf("the proxy is not the application: got %+v", f)
	}
}
