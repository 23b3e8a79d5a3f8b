package control_test

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/flow"
	"github.com/waybill-net/waybill/internal/flowstore"
	"github.com/waybill-net/waybill/internal/policyfile"
)

const (
	testGroup = "daemon" // stands for the group waybill: it is on every Debian
	testGID   = 1
	alice     = 61234 // nobody is called so; users need no entry
	openGID   = 4242  // provider adblock is open to it
)

var began = time.Date(2026, 8, 2, 18, 41, 58, 0, time.UTC)

// backend is a daemon with a policy that never changes, and real flows.
type backend struct {
	*flowstore.Store
	changes chan flow.Flow
	runs    chan *control.Peer
	ended   chan *control.Peer

	follow error // ends Follow
	sql    error
}

var errTooSlow = errors.New("too many flows wait to be read")

func newBackend(t *testing.T) *backend {
	store, err := flowstore.Open(flowstore.Options{Path: filepath.Join(t.TempDir(), "flows.db"), MaxAge: 100 * 365 * 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	b := &backend{store, make(chan flow.Flow), make(chan *control.Peer, 10), make(chan *control.Peer, 10), nil, nil}
	var events []flow.Event
	for id, uid := range map[flow.ID]uint32{1: 0, 2: alice, 3: alice + 1} {
		events = append(events, connect(id, uid), arrive(id))
	}
	// Whose flow 4 is was not seen.
	if err := store.Add(context.Background(), append(events, arrive(4))); err != nil {
		t.Fatal(err)
	}
	return b
}

func connect(id flow.ID, uid uint32) flow.Event {
	return flow.Event{
		Kind: flow.Redirected, Time: began.Add(time.Duration(id) * time.Second), Flow: id,
		Provider: "adblock", Filter: "web", State: "not-redirected", Dst: netip.MustParseAddrPort("192.0.2.1:443"),
		Process: flow.Process{PID: 4711, UID: uid, GID: uid, Comm: "curl"},
	}
}

func arrive(id flow.ID) flow.Event {
	return flow.Event{Kind: flow.Accepted, Provider: "adblock", Flow: id, Time: began.Add(time.Duration(id)*time.Second + 41*time.Microsecond)}
}

func changed(id flow.ID, uid uint32) flow.Flow {
	var f flow.Flow
	f.Apply(connect(id, uid))
	return f
}

func (b *backend) Status(context.Context) (*control.Status, error) {
	return &control.Status{
		Version: "v0.3.0", PID: 812, Started: began, Scope: "/sys/fs/cgroup/user.slice", State: "/sys/fs/bpf/waybill", Adopted: true,
		Policy: status(),
		Providers: []control.Provider{
			{
				Name: "adblock", Weight: 200, OnDown: "bypass", Mode: control.Enforce, OpenTo: []string{"4242", "no-such-group"},
				Addresses: []control.Address{{Address: netip.MustParseAddrPort("127.0.0.1:7001"), Listening: true}},
				Processes: control.Processes{Exec: []string{"/usr/bin/adblock"}, User: "adblock", Cgroup: "/sys/fs/cgroup/waybill/adblock", PIDs: []int{901}},
				Counters:  control.ProviderCounters{Redirected: 7, Arrived: 6, Bypassed: 1},
				Proxy:     &control.Proxy{Running: true, PID: 901, Since: began, Restarts: 1, LastExit: "exit status 1", Tail: []string{"listening"}},
			},
			{
				Name: "dlp", Weight: 100, OnDown: "block", Mode: control.Enforce, OpenTo: []string{},
				Addresses: []control.Address{{Address: netip.MustParseAddrPort("127.0.0.1:7002")}},
				Processes: control.Processes{Unit: "dlp.service", PIDs: []int{}},
				Problem:   "nothing listens on 127.0.0.1:7002",
			},
		},
		Counters: map[string]uint64{"redirected": 7, "down_no_listener": 3, "events_lost": 2, "queried": 6, "departed": 7},
		InFlight: 1, Runs: 2, Unmatched: []string{}, Warnings: []string{"2 events were lost"},
	}, nil
}

func status() control.PolicyStatus {
	return control.PolicyStatus{Name: "/etc/waybill/policy.yaml", Generation: 4, Applied: began, Mode: control.Enforce, Filters: 3}
}

func (b *backend) Policy(context.Context) (*control.Policy, error) {
	return &control.Policy{PolicyStatus: status(), YAML: "version: 1\n"}, nil
}

// ApplyPolicy reads the policy and forgets it.
func (b *backend) ApplyPolicy(_ context.Context, name string, yaml []byte) (*control.Applied, error) {
	f, err := policyfile.Parse(name, yaml, policyfile.Options{})
	if err != nil {
		return nil, err
	}
	return &control.Applied{Generation: 5, Providers: len(f.Policy.Providers), Filters: len(f.Policy.Filters), Warnings: f.Warnings}, nil
}

func (b *backend) Explain(_ context.Context, r control.ExplainRequest) (any, error) {
	if r.User == "panic" {
		panic("explain")
	}
	return map[string]any{"verdict": "redirect", "provider": "adblock", "asked": r}, nil
}

func (b *backend) SQL(ctx context.Context, query string) ([]string, [][]any, error) {
	if b.sql != nil {
		return nil, nil, b.sql
	}
	return b.Store.SQL(ctx, query)
}

func (b *backend) Follow(ctx context.Context, ready func(), do func(flow.Flow) error) error {
	ready()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case f := <-b.changes:
			if f.ID == 0 {
				return b.follow
			}
			if err := do(f); err != nil {
				return err
			}
		}
	}
}

func (b *backend) Run(_ context.Context, p *control.Peer, r control.RunRequest) (*control.RunResult, io.Closer, error) {
	if err := p.Check(); err != nil {
		return nil, nil, err
	}
	b.runs <- p
	return &control.RunResult{Cgroup: "/sys/fs/cgroup/waybill/run-1", Via: r.Via}, closer(func() { b.ended <- p }), nil
}

type closer func()

func (c closer) Close() error { c(); return nil }

// serve serves the backend on a socket that every user can reach, but for its
// mode.
func serve(t *testing.T, b control.Backend) (socket string, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "waybill-control-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := &control.Server{Backend: b, Version: "v0.3.0", Group: testGroup}
	socket = filepath.Join(dir, "waybill.sock")
	l, err := s.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := within(t, ended, "end of the server"); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return socket, stop
}

// within fails the test if nothing comes.
func within[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("no %s after 20 s", what)
		panic("not reached")
	}
}
