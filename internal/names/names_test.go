package names_test

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waybill-net/waybill/internal/dns"
	"github.com/waybill-net/waybill/internal/names"
)

// told is an engine that remembers what it is told.
type told struct {
	mu    sync.Mutex
	names map[netip.Addr][]string
}

func (t *told) set(addr netip.Addr, names []string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.names == nil {
		t.names = make(map[netip.Addr][]string)
	}
	if t.names[addr] = names; len(names) == 0 {
		delete(t.names, addr)
	}
	return nil
}

func (t *told) all() map[netip.Addr][]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.names)
}

func resolved(name, addr string, left time.Duration) dns.Resolved {
	return dns.Resolved{Name: name, Addresses: map[netip.Addr]time.Duration{netip.MustParseAddr(addr): left}}
}

func learn(t *testing.T, k *names.Keeper, found dns.Resolved) {
	t.Helper()
	if err := k.Learn(found); err != nil {
		t.Error(err)
	}
}

func open(t *testing.T, opts names.Options) *names.Keeper {
	t.Helper()
	opts.Failed = func(err error) { t.Error(err) }
	k, err := names.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestRestart: the next one knows what this one knew, and tells it.
func TestRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "names.json")
	var before, after told
	first := open(t, names.Options{Path: path, Set: before.set})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		first.Run(ctx)
	}()
	learn(t, first, resolved("a.example", "192.0.2.1", time.Hour))
	learn(t, first, resolved("b.example", "192.0.2.1", time.Hour))
	learn(t, first, resolved("c.example", "2001:db8::1", time.Hour))
	if got := first.Newest(netip.MustParseAddr("::ffff:192.0.2.1")); got != "b.example" {
		t.Errorf("newest is %q", got)
	}
	cancel()
	<-done
	second := open(t, names.Options{Path: path, Set: after.set})
	if got := second.Of(netip.MustParseAddr("192.0.2.1")); !reflect.DeepEqual(got, []string{"b.example", "a.example"}) {
		t.Errorf("after a restart: %q", got)
	}
	if !reflect.DeepEqual(before.all(), after.all()) || len(after.all()) != 2 {
		t.Errorf("told %v, and after a restart %v", before.all(), after.all())
	}
	if second.Newest(netip.MustParseAddr("192.0.2.9")) != "" {
		t.Error("an address that nobody has told has a name")
	}
}

// TestRenewed: an answer that says the same again is known for longer, also by
// the next one.
func TestRenewed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "names.json")
	synctest.Test(t, func(t *testing.T) {
		first := open(t, names.Options{Path: path})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			first.Run(ctx)
		}()
		learn(t, first, resolved("a.example", "192.0.2.1", 2*time.Minute))
		time.Sleep(time.Minute)
		learn(t, first, resolved("a.example", "192.0.2.1", 2*time.Minute))
		time.Sleep(90 * time.Second)
		cancel()
		<-done
		if second := open(t, names.Options{Path: path}); second.Newest(netip.MustParseAddr("192.0.2.1")) != "a.example" {
			t.Error("after a restart it is forgotten")
		}
	})
}

// TestSetFails: whoever tells names hears that they do not count, and is heard
// when they are told again.
func TestSetFails(t *testing.T) {
	trouble := errors.New("no memory")
	var engine told
	k := open(t, names.Options{Set: func(addr netip.Addr, names []string) error {
		if trouble != nil {
			return trouble
		}
		return engine.set(addr, names)
	}})
	found := resolved("a.example", "192.0.2.1", time.Hour)
	if err := k.Learn(found); !errors.Is(err, trouble) {
		t.Errorf("got %v", err)
	}
	trouble = nil
	learn(t, k, found)
	if len(engine.all()) != 1 {
		t.Errorf("told %v", engine.all())
	}
}

// TestBrokenFile: it is said, and the keeper begins with nothing.
func TestBrokenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "names.json")
	if err := os.WriteFile(path, []byte(`[{"name": `), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := names.Open(names.Options{Path: path})
	if err == nil || k == nil {
		t.Fatalf("got %v, %v", k, err)
	}
	learn(t, k, resolved("a.example", "192.0.2.1", time.Hour))
	if k.Newest(netip.MustParseAddr("192.0.2.1")) != "a.example" {
		t.Error("it learns nothing")
	}
}
