//go:build linux

// Package controltest has a daemon for tests: one whose answers are always the
// same, behind the real server, with real flows in a real store.
package controltest

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/explain"
	"github.com/waybill-net/waybill/internal/flow"
	"github.com/waybill-net/waybill/internal/flowstore"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/policyfile"
)

const (
	Group   = "daemon" // stands for the group waybill: it is on every Debian
	GID     = 1
	Alice   = 61234 // nobody is called so; users need no entry
	OpenGID = 4242  // provider adblock is open to it
)

// Began is when the daemon started. Flow n began n seconds later.
var Began = time.Date(2026, 8, 2, 18, 41, 58, 0, time.UTC)

// Backend is a daemon with a policy that never changes. It has the flows 1 of
// root, 2 of Alice, 3 of another, and 4, of which nobody saw whose it is.
type Backend struct {
	*flowstore.Store
	Changes chan flow.Flow     // given to followers; an empty one ends Follow with FollowError
	Runs    chan *control.Peer // that began
	Ended   chan *control.Peer // those that ended

	FollowError error
}

// New makes a backend that lasts as long as the test.
func New(t testing.TB) *Backend {
	t.Helper()
	store, err := flowstore.Open(flowstore.Options{Path: filepath.Join(t.TempDir(), "flows.db"), MaxAge: 100 * 365 * 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	const many = 10 // more than a test looks at
	b := &Backend{Store: store, Changes: make(chan flow.Flow), Runs: make(chan *control.Peer, many), Ended: make(chan *control.Peer, many)}
	var events []flow.Event
	for id, uid := range map[flow.ID]uint32{1: 0, 2: Alice, 3: Alice + 1} {
		events = append(events, Connect(id, uid), Arrive(id))
	}
	if err := store.Add(context.Background(), append(events, Arrive(4))); err != nil {
		t.Fatal(err)
	}
	return b
}

// Connect is the connect() of a flow of a user.
func Connect(id flow.ID, uid uint32) flow.Event {
	return flow.Event{
		Kind: flow.Redirected, Time: Began.Add(time.Duration(id) * time.Second), Flow: id,
		Provider: "adblock", Filter: "web", State: "not-redirected", Dst: netip.MustParseAddrPort("192.0.2.1:443"),
		Process: flow.Process{PID: 4711, UID: uid, GID: uid, Comm: "curl"},
	}
}

// Arrive is the end of its handshake.
func Arrive(id flow.ID) flow.Event {
	return flow.Event{Kind: flow.Accepted, Provider: "adblock", Flow: id, Time: Began.Add(time.Duration(id)*time.Second + 41*time.Microsecond)}
}

// Changed is a flow that has just begun.
func Changed(id flow.ID, uid uint32) flow.Flow {
	var f flow.Flow
	f.Apply(Connect(id, uid))
	return f
}

func (b *Backend) Status(context.Context) (*control.Status, error) {
	return &control.Status{
		Version: "v0.3.0", PID: 812, Started: Began, Scope: "/sys/fs/cgroup/user.slice", State: "/sys/fs/bpf/waybill", Adopted: true,
		Policy: policyStatus(),
		Providers: []control.Provider{
			{
				Name: "adblock", Weight: 200, OnDown: "bypass", Mode: control.Enforce, OpenTo: []string{"4242", "no-such-group"},
				Addresses: []control.Address{{Address: netip.MustParseAddrPort("127.0.0.1:7001"), Listening: true}},
				Processes: control.Processes{Exec: []string{"/usr/bin/adblock"}, User: "adblock", Cgroup: "/sys/fs/cgroup/waybill/adblock", PIDs: []int{901}},
				Counters:  control.ProviderCounters{Redirected: 7, Arrived: 6, Bypassed: 1},
				Proxy:     &control.Proxy{Running: true, PID: 901, Since: Began, Restarts: 1, LastExit: "exit status 1", Tail: []string{"listening"}},
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

func policyStatus() control.PolicyStatus {
	return control.PolicyStatus{Name: "/etc/waybill/policy.yaml", Generation: 4, Applied: Began, Mode: control.Enforce, Filters: 3}
}

func (b *Backend) Policy(context.Context) (*control.Policy, error) {
	return &control.Policy{PolicyStatus: policyStatus(), YAML: "version: 1\n"}, nil
}

// ApplyPolicy reads the policy and forgets it.
func (b *Backend) ApplyPolicy(_ context.Context, name string, yaml []byte) (*control.Applied, error) {
	f, err := policyfile.Parse(name, yaml, policyfile.Options{})
	if err != nil {
		return nil, err
	}
	return &control.Applied{Generation: 5, Providers: len(f.Policy.Providers), Filters: len(f.Policy.Filters), Warnings: f.Warnings}, nil
}

func (b *Backend) Explain(_ context.Context, q explain.Question) (policy.Explanation, error) {
	return policy.Explanation{
		Dst: q.Dst, Proxies: []string{"adblock"}, Outcome: "passed",
		Steps: []policy.Step{{Process: policy.Subject{Program: q.Program}, Outcome: "redirected", Provider: "adblock"}},
	}, nil
}

func (b *Backend) Follow(ctx context.Context, ready func(), do func(flow.Flow) error) error {
	ready()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case f := <-b.Changes:
			if f.ID == 0 {
				return b.FollowError
			}
			if err := do(f); err != nil {
				return err
			}
		}
	}
}

func (b *Backend) Run(_ context.Context, p *control.Peer, r control.RunRequest) (*control.RunResult, io.Closer, error) {
	if err := p.Check(); err != nil {
		return nil, nil, err
	}
	b.Runs <- p
	return &control.RunResult{Cgroup: "/sys/fs/cgroup/waybill/run-1", Via: r.Via}, closer(func() { b.Ended <- p }), nil
}

type closer func()

func (c closer) Close() error { c(); return nil }

// Serve serves the backend on a socket that every user can reach, but for its
// mode.
func Serve(t testing.TB, b control.Backend) (socket string, stop func()) {
	t.Helper()
	return serve(t, &control.Server{Backend: b, Version: "v0.3.0", Group: Group})
}

// ServeNames is Serve for those who tell names.
func ServeNames(t testing.TB, s *control.NamesServer) (socket string) {
	t.Helper()
	socket, _ = serve(t, s)
	return socket
}

type server interface {
	Listen(socket string) (net.Listener, error)
	Serve(ctx context.Context, l net.Listener) error
}

func serve(t testing.TB, s server) (socket string, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "waybill-control-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
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
		if err := Within(t, ended, "end of the server"); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return socket, stop
}

// Within fails the test if nothing comes.
func Within[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("no %s after 20 s", what)
		panic("not reached")
	}
}
