package flowstore_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/flow"
	"github.com/waybill-net/waybill/internal/flowstore"
)

// rowCounts counts what is in each table.
func rowCounts(t *testing.T, s *flowstore.Store) [3]int64 {
	t.Helper()
	_, rows, err := s.SQL(context.Background(), "SELECT (SELECT count(*) FROM flows), (SELECT count(*) FROM hops), (SELECT count(*) FROM skips)")
	if err != nil {
		t.Fatal(err)
	}
	return [3]int64{rows[0][0].(int64), rows[0][1].(int64), rows[0][2].(int64)}
}

func fill(t *testing.T, s *flowstore.Store, from, to flow.ID) {
	t.Helper()
	var events []flow.Event
	for id := from; id < to; id++ {
		events = append(events, chain(id)...)
	}
	add(t, s, events...)
}

func TestPruneByAge(t *testing.T) {
	s := open(t, flowstore.Options{MaxAge: time.Since(start) - time.Minute})
	// Those below id 60,000 started a minute after start or earlier.
	fill(t, s, 1, 2502)
	fill(t, s, 200_000, 200_010)
	if err := s.Prune(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := rowCounts(t, s); got != [3]int64{10, 30, 30} {
		t.Errorf("got %v flows, hops and skips left", got)
	}
	// One that was in memory and is gone begins anew.
	add(t, s, chain(1)[7])
	same(t, mustFlow(t, s, 1), assemble(chain(1)[7:]))
}

func TestPruneBySize(t *testing.T) {
	const maxBytes = 2 << 20
	path := filepath.Join(t.TempDir(), "flows.db")
	s := open(t, flowstore.Options{Path: path, MaxBytes: maxBytes})
	fill(t, s, 1, 6000)
	before := fileSize(t, path) + fileSize(t, path+"-wal")
	if before < 2*maxBytes {
		t.Fatalf("the file has only %d bytes before", before)
	}
	if err := s.Prune(context.Background()); err != nil {
		t.Fatal(err)
	}
	if after := fileSize(t, path) + fileSize(t, path+"-wal"); after > maxBytes {
		t.Errorf("it has %d bytes after, and had %d; want %d", after, before, maxBytes)
	}
	left, err := s.Flows(context.Background(), flowstore.Query{})
	if err != nil || len(left) < 1000 {
		t.Fatalf("%d flows left, %v", len(left), err)
	}
	// The newest are left, and whole.
	for i, f := range left {
		if f.ID != flow.ID(5999-i) || len(f.Hops) != 3 {
			t.Fatalf("flow %d is left as number %d, with %d hops", f.ID, i, len(f.Hops))
		}
	}
	if got := rowCounts(t, s); got[1] != 3*got[0] || got[2] != 3*got[0] {
		t.Errorf("got %v flows, hops and skips left", got)
	}
}

// TestAddPrunes: the file is bounded even if nobody calls Prune.
func TestAddPrunes(t *testing.T) {
	const maxBytes = 1 << 20
	path := filepath.Join(t.TempDir(), "flows.db")
	s := open(t, flowstore.Options{Path: path, MaxBytes: maxBytes})
	fill(t, s, 1, 6250) // 49,992 events
	fill(t, s, 6250, 6252)
	if size := fileSize(t, path); size > maxBytes {
		t.Errorf("it has %d bytes", size)
	}
}

func fileSize(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
