package flowstore_test

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/flow"
	"github.com/waybill-net/waybill/internal/flowstore"
)

func assemble(events []flow.Event) flow.Flow {
	var f flow.Flow
	for _, e := range events {
		f.Apply(e)
	}
	return f
}

func add(t testing.TB, s *flowstore.Store, events ...flow.Event) {
	t.Helper()
	if err := s.Add(context.Background(), events); err != nil {
		t.Fatal(err)
	}
}

func mustFlow(t testing.TB, s *flowstore.Store, id flow.ID) flow.Flow {
	t.Helper()
	f, err := s.Flow(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	return *f
}

// same compares flows as JSON has them: equal times may differ in their zone.
func same(t testing.TB, got, want flow.Flow) {
	t.Helper()
	a, _ := json.Marshal(got)
	b, _ := json.Marshal(want)
	if string(a) != string(b) {
		t.Errorf("got  %s\nwant %s", a, b)
	}
}

func TestRoundTrip(t *testing.T) {
	details := flow.Details{
		Executable: "/usr/bin/curl", Unverified: true, Args: []string{"curl", "ü\x00\n"}, User: "alice",
		Cgroup: "/a/b", Unit: "b.scope", Container: strings.Repeat("ab", 32),
	}
	asked := 0
	s := open(t, flowstore.Options{Details: func(p flow.Process) flow.Details {
		if asked++; p.PID != curl.PID {
			t.Errorf("asked for details of %+v", p)
		}
		return details
	}})
	want := assemble(chain(1))
	want.Details = details
	for _, e := range chain(1) {
		add(t, s, e)
	}
	same(t, mustFlow(t, s, 1), want)
	if asked != 1 {
		t.Errorf("asked for details %d times", asked)
	}
	if _, err := s.Flow(context.Background(), 2); !errors.Is(err, flowstore.ErrNotFound) || !strings.Contains(err.Error(), "0000000000000002") {
		t.Errorf("another flow: got %v", err)
	}
}

// TestAnyBatches: however events are shuffled, repeated, cut into batches and
// spread over restarts, the flows are the same.
func TestAnyBatches(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for round := range 10 {
		const flows = 30
		path := filepath.Join(t.TempDir(), "flows.db")
		var events []flow.Event
		for id := range flow.ID(flows) {
			events = append(events, chain(id+1)...)
		}
		events = append(events, events[:40]...)
		rng.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
		for len(events) > 0 {
			s := open(t, flowstore.Options{Path: path})
			for range 5 {
				n := rng.IntN(min(30, len(events)+1))
				add(t, s, events[:n]...)
				events = events[n:]
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		s := open(t, flowstore.Options{Path: path})
		for id := range flow.ID(flows) {
			same(t, mustFlow(t, s, id+1), assemble(chain(id+1)))
		}
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
}

// TestNewerTry: what an earlier try has skipped does not stay.
func TestNewerTry(t *testing.T) {
	s := open(t, flowstore.Options{})
	events := chain(1)[:1]
	again := events[0]
	again.Time, again.Skipped = again.Time.Add(time.Second), again.Skipped[1:]
	add(t, s, events...)
	add(t, s, again)
	same(t, mustFlow(t, s, 1), assemble(append(events, again)))
}

// TestUnknownIsNull: zeros would falsify sums and means.
func TestUnknownIsNull(t *testing.T) {
	s := open(t, flowstore.Options{})
	add(t, s, chain(1)[:1]...)
	add(t, s, chain(2)[7])
	_, rows, err := s.SQL(context.Background(), `SELECT count(*), count(pid), count(uid), count(inode), count(connected),
		count(closed), count(sent), count(received), count(duration) FROM hops`)
	want := []any{int64(2), int64(1), int64(1), int64(1), int64(1), int64(1), int64(1), int64(1), int64(1)}
	if err != nil || !slices.Equal(rows[0], want) {
		t.Errorf("got %v, %v; want %v", rows, err, want)
	}
	_, rows, err = s.SQL(context.Background(), "SELECT count(*), count(pid), count(uid), count(destination), count(ended), count(sent) FROM flows")
	if want = want[:6]; err != nil || !slices.Equal(rows[0], want) {
		t.Errorf("got %v, %v; want %v", rows, err, want)
	}
}

func TestQuery(t *testing.T) {
	s := open(t, flowstore.Options{Details: func(p flow.Process) flow.Details {
		return flow.Details{Executable: "/usr/bin/" + p.Comm}
	}})
	other := chain(2)
	other[0].Process.UID, other[0].Process.Comm, other[0].Provider = 7, "wget", "sidecar"
	add(t, s, slices.Concat(chain(3), other, chain(1))...)
	at := func(id int) time.Time { return start.Add(time.Duration(id) * time.Millisecond) }
	uid, id := uint32(7), flow.ID(3)
	for _, tt := range []struct {
		name string
		q    flowstore.Query
		want []flow.ID
	}{
		{"all", flowstore.Query{}, []flow.ID{3, 2, 1}},
		{"limit", flowstore.Query{Limit: 2}, []flow.ID{3, 2}},
		{"since", flowstore.Query{Since: at(2)}, []flow.ID{3, 2}},
		{"until", flowstore.Query{Until: at(2)}, []flow.ID{1}},
		{"user", flowstore.Query{UID: &uid}, []flow.ID{2}},
		{"id", flowstore.Query{ID: &id}, []flow.ID{3}},
		{"program by name", flowstore.Query{Program: "curl"}, []flow.ID{3, 1}},
		{"program by path", flowstore.Query{Program: "/usr/bin/wget"}, []flow.ID{2}},
		{"a part of a program's name", flowstore.Query{Program: "cur"}, nil},
		{"provider", flowstore.Query{Provider: "sidecar"}, []flow.ID{2}},
		{"provider of a later hop", flowstore.Query{Provider: "dlp", Limit: 1}, []flow.ID{3}},
		{"provider that was skipped", flowstore.Query{Provider: "parental"}, nil},
		{"all at once", flowstore.Query{Program: "wget", UID: &uid, Since: at(1), Until: at(3), Provider: "dlp"}, []flow.ID{2}},
	} {
		flows, err := s.Flows(context.Background(), tt.q)
		var got []flow.ID
		for _, f := range flows {
			got = append(got, f.ID)
		}
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, %v; want %v", tt.name, got, err, tt.want)
		}
	}
}

// TestReadWhileWriting: readers see whole flows, and nobody waits for ever.
func TestReadWhileWriting(t *testing.T) {
	const flows = 500
	s := open(t, flowstore.Options{})
	written := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for {
				found, err := s.Flows(context.Background(), flowstore.Query{Limit: 50})
				if err != nil {
					t.Error(err)
					return
				}
				for _, f := range found {
					if len(f.Hops) != 3 || f.Outcome != flow.Failed {
						t.Errorf("half a flow: %+v", f)
					}
				}
				select {
				case <-written:
					return
				default:
				}
			}
		})
	}
	for id := range flow.ID(flows) {
		add(t, s, chain(id+1)...)
	}
	close(written)
	readers.Wait()
	if found, err := s.Flows(context.Background(), flowstore.Query{}); err != nil || len(found) != flows {
		t.Errorf("got %d flows, %v; want %d", len(found), err, flows)
	}
}

func TestCancelled(t *testing.T) {
	s := open(t, flowstore.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Add(ctx, chain(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("Add: got %v", err)
	}
	if err := s.Prune(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Prune: got %v", err)
	}
	add(t, s, chain(1)...)
	same(t, mustFlow(t, s, 1), assemble(chain(1)))
}

// TestDocument asks every question of docs/flows.md.
func TestDocument(t *testing.T) {
	s := open(t, flowstore.Options{Details: func(flow.Process) flow.Details {
		return flow.Details{Executable: "/usr/bin/curl", User: "alice", Container: "3f4e" + strings.Repeat("0", 60)}
	}})
	add(t, s, func() []flow.Event {
		events := chain(1)
		for i := range events {
			events[i].Time = events[i].Time.Add(30 * time.Minute)
		}
		return events
	}()...)
	text, err := os.ReadFile("../../docs/flows.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(text), "```sql\n")[1:]
	if len(blocks) < 8 {
		t.Errorf("found only %d questions", len(blocks))
	}
	for _, block := range blocks {
		query, _, _ := strings.Cut(block, "```")
		_, rows, err := s.SQL(context.Background(), query)
		if err != nil || len(rows) == 0 {
			t.Errorf("%s\ngot %v, %v; it should find the flow", query, rows, err)
		}
	}
	for _, table := range []string{"chains", "flows", "hops", "skips"} {
		columns, _, err := s.SQL(context.Background(), "SELECT * FROM "+table)
		if err != nil {
			t.Error(err)
		}
		_, section, _ := strings.Cut(string(text), "\n## "+table)
		section, _, _ = strings.Cut(section, "\n## ")
		for _, c := range columns {
			if !strings.Contains(section, "`"+c+"`") {
				t.Errorf("docs/flows.md does not describe %s.%s", table, c)
			}
		}
	}
}

func TestChainsView(t *testing.T) {
	s := open(t, flowstore.Options{})
	events := chain(1)
	for i := range events {
		if events[i].Dst.IsValid() {
			events[i].Dst = outside6
		}
	}
	add(t, s, events...)
	_, rows, err := s.SQL(context.Background(), "SELECT time, flow, user, destination, via, down, outcome, errors, ms, sent, received FROM chains")
	if err != nil || len(rows) != 1 {
		t.Fatal(rows, err)
	}
	want := []any{
		start.Add(time.Millisecond).Local().Format("2006-01-02 15:04:05.000"), "0000000000000001", int64(1000), "[2001:db8::1]:443",
		"adblock → dlp", "parental", "failed", "connection reset by peer", 0.7, int64(1200), int64(34500),
	}
	for i := range want {
		if rows[0][i] != want[i] {
			t.Errorf("column %d: got %#v, want %#v", i, rows[0][i], want[i])
		}
	}
}
