//go:build linux

package interop

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/flow"
)

// journal has all events, as they came from the kernel.
type journal struct {
	mu     sync.Mutex
	events []flow.Event
}

func startJournal(t *testing.T, e *engine.Engine) *journal {
	t.Helper()
	events, err := e.Events()
	if err != nil {
		t.Fatal(err)
	}
	j := &journal{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			event, err := events.Read()
			if err != nil {
				if !errors.Is(err, os.ErrClosed) {
					t.Error(err)
				}
				return
			}
			j.mu.Lock()
			j.events = append(j.events, event)
			j.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		events.Close()
		<-ended
	})
	return j
}

// connects returns what became of each connect() to an address, in the order
// in which they were made.
func (j *journal) connects(to netip.Addr) []flow.Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	var found []flow.Event
	for _, e := range j.events {
		if e.Dst.Addr() == to {
			found = append(found, e)
		}
	}
	slices.SortStableFunc(found, func(a, b flow.Event) int { return a.Time.Compare(b.Time) })
	return found
}

// has reports whether there is an event of this kind of the same connection.
func (j *journal) has(kind flow.Kind, of flow.Event) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.ContainsFunc(j.events, func(e flow.Event) bool {
		return e.Kind == kind && e.Flow == of.Flow && e.Hop == of.Hop && !e.Time.Before(of.Time)
	})
}

// findCgroups tells whose the cgroups below the scope are, by their id: the
// first directory is named after the proxy, or it is the application's.
func (s *stage) findCgroups(t *testing.T) map[uint64]string {
	t.Helper()
	s.env.Cgroup(appCgroup)
	owners := make(map[uint64]string)
	err := filepath.WalkDir(s.env.Scope, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() || path == s.env.Scope {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Stat(path, &st); err != nil {
			return err
		}
		rel, err := filepath.Rel(s.env.Scope, path)
		owners[st.Ino], _, _ = strings.Cut(rel, "/")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return owners
}
