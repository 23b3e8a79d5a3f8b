//go:build linux

package engine

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/waybill-net/waybill/internal/testenv"
)

// TestSourcesAreSwept: what a follower has left that was killed is deleted by
// the next, whatever network namespace that is in.
func TestSourcesAreSwept(t *testing.T) {
	t.Parallel()
	e, err := Open(Options{Scope: testenv.New(t).Scope})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	set := func(netns uint64, valid time.Duration, prefixes ...string) {
		t.Helper()
		sources := make(map[netip.Prefix]Source)
		for _, p := range prefixes {
			sources[netip.MustParsePrefix(p)] = Source{Err: unix.ENETUNREACH}
		}
		if err := e.SetSources(netns, sources, valid); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string, wantSources, wantNamespaces int) {
		t.Helper()
		sources, err := countKeys[kernelWbSourceKey, kernelWbSource](e.objects.Sources)
		if err != nil {
			t.Fatal(err)
		}
		namespaces, err := countKeys[uint64, uint64](e.objects.SourcesUntil)
		if err != nil {
			t.Fatal(err)
		}
		if sources != wantSources || namespaces != wantNamespaces {
			t.Errorf("%s: %d sources of %d namespaces, want %d of %d", when, sources, namespaces, wantSources, wantNamespaces)
		}
	}
	set(1, time.Hour, "0.0.0.0/0", "::/0", "192.0.2.0/24")
	set(2, 0, "0.0.0.0/0", "2001:db8::/32")
	check("of two namespaces", 5, 2)
	set(1, time.Hour, "0.0.0.0/0", "198.51.100.0/24")
	check("the second is out of date", 2, 1)
	set(3, time.Hour, "::/0")
	check("the first is not", 3, 2)
	set(1, 0)
	check("without the first", 1, 1)
}
