//go:build linux

package interop

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/waybill-net/waybill/internal/policy"
)

var full = flag.Bool("full", false, "download 1 GiB through every chain")

const (
	largeDownload = 1 << 30
	smallDownload = 64 << 20
)

// Of these every ordered pair is a chain.
var paired = []string{"mitmproxy", "haproxy", "nginx", "squid", "redsocks"}

// Of these every order is one.
var ordered = []string{"mitmproxy", "haproxy", "inspect"}

// chains returns each proxy alone, pairs, and three in every order.
func chains(kinds []kind) [][]string {
	var all [][]string
	for _, k := range kinds {
		all = append(all, []string{k.name})
	}
	for _, a := range paired {
		for _, b := range paired {
			if a != b {
				all = append(all, []string{a, b})
			}
		}
	}
	for _, a := range ordered {
		for _, b := range ordered {
			for _, c := range ordered {
				if a != b && b != c && a != c {
					all = append(all, []string{a, b, c})
				}
			}
		}
	}
	return all
}

// large are the pairs through which CI too downloads 1 GiB.
var large = [][]string{{"haproxy", "nginx"}, {"nginx", "redsocks"}, {"mitmproxy", "haproxy"}}

func downloadSize(chain []string, family int) int64 {
	isLarge := len(chain) == 1 || slices.ContainsFunc(large, func(c []string) bool { return slices.Equal(c, chain) })
	if *full || isLarge && family == 4 {
		return largeDownload
	}
	return smallDownload
}

// TestMatrix sends every payload through every chain of the proxies that
// Debian has.
func TestMatrix(t *testing.T) {
	s := newStage(t, kinds())
	s.runMatrix(t, chains(s.kinds))
}

func (s *stage) runMatrix(t *testing.T, chains [][]string) {
	t.Helper()
	table := newTable()
	var ran [][]string // what was asked for by -run
	for _, chain := range chains {
		t.Run(strings.Join(chain, ","), func(t *testing.T) {
			ran = append(ran, chain)
			s.apply(t, s.policy(chain))
			table.add(s.runChain(t, chain)...)
		})
	}
	for _, c := range s.cells {
		c.checkLate(t, s)
	}
	s.checkCounters(t) // before the loops, which are to go wrong
	for i, chain := range ran {
		cell := "–"
		if len(chain) > 1 {
			t.Run("loop/"+strings.Join(chain, ","), func(t *testing.T) { cell = s.loop(t, chain) })
		}
		table.rows[i+1] = append(table.rows[i+1], cell)
	}
	t.Logf("\n%s", table)
}

// runChain returns the chain's row.
func (s *stage) runChain(t *testing.T, chain []string) []string {
	row := []string{strings.Join(chain, " → ")}
	id := "kept"
	for _, load := range payloads {
		var cells []*cell
		for _, family := range []int{4, 6} {
			c := &cell{chain: chain, load: load, family: family, size: load.size()}
			if load == payloadDownload {
				c.size = downloadSize(chain, family)
			}
			t.Run(fmt.Sprintf("%s-%d", load, family), func(t *testing.T) {
				c.run(t, s)
				s.cells = append(s.cells, c)
			})
			if !c.oneID && len(c.path) > 0 && len(c.legs) > 0 {
				id = "new"
			}
			cells = append(cells, c)
		}
		row = append(row, text(s, cells))
	}
	return append(row, id)
}

func size(n int64) string {
	if n >= 1<<30 {
		return fmt.Sprintf("%d GiB", n>>30)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// checkCounters: nothing went wrong that no single flow shows.
func (s *stage) checkCounters(t *testing.T) {
	t.Helper()
	s.apply(t, policy.Policy{})
	counters, err := s.engine.Counters()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"lost", "looped", "blocked", "diverted", "intercepted", "events_lost", "set_forged", "set_denied"} {
		if counters[name] != 0 {
			t.Errorf("counter %s is %d", name, counters[name])
		}
	}
	if counters["arrived"] != counters["redirected"] || counters["redirected"] == 0 {
		t.Errorf("%d connections were redirected and %d arrived", counters["redirected"], counters["arrived"])
	}
}
