package flowstore_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/waybill-net/waybill/internal/flow"
	"github.com/waybill-net/waybill/internal/flowstore"
)

// childVariable makes the test program a writer that waits to be killed.
const (
	childVariable = "WAYBILL_TEST_FLOWSTORE"       // the path
	startVariable = "WAYBILL_TEST_FLOWSTORE_START" // the time of its first flow
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childVariable); path != "" {
		if err := start.UnmarshalText([]byte(os.Getenv(startVariable))); err != nil {
			panic(err)
		}
		fmt.Fprintln(os.Stderr, writeForEver(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writeForEver prints the number of each flow that is in the file.
func writeForEver(path string) error {
	s, err := flowstore.Open(flowstore.Options{Path: path})
	if err != nil {
		return err
	}
	f, err := s.Flows(context.Background(), flowstore.Query{Limit: 1})
	if err != nil {
		return err
	}
	id := flow.ID(1)
	if len(f) > 0 {
		id = f[0].ID + 1
	}
	for ; ; id++ {
		if err := s.Add(context.Background(), chain(id)); err != nil {
			return err
		}
		fmt.Println(uint64(id))
	}
}

// TestKill: a writer that is killed in the middle of its work loses nothing
// that it had been told was written, also not the second and third time.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flows.db")
	for round := 1; round <= 3; round++ {
		written := writeAndKill(t, path, 150)
		s, err := flowstore.Open(flowstore.Options{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		if s.Warning() != nil {
			t.Errorf("round %d: %v", round, s.Warning())
		}
		for id := range written {
			same(t, mustFlow(t, s, id+1), assemble(chain(id+1)))
		}
		// What was written and not yet reported is there whole or not at all.
		if got := rowCounts(t, s); got[0] < int64(written) || got[1] != 3*got[0] || got[2] != 3*got[0] {
			t.Errorf("round %d: %v flows, hops and skips are there, %d flows were written", round, got, written)
		}
		if _, rows, err := s.SQL(context.Background(), "PRAGMA integrity_check"); err != nil || rows[0][0] != "ok" {
			t.Errorf("round %d: integrity check: %v, %v", round, rows, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// writeAndKill runs a writer until it has written so many more flows, and
// returns the last one.
func writeAndKill(t *testing.T, path string, flows int) flow.ID {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	first, err := start.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), childVariable+"="+path, startVariable+"="+string(first))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	var last uint64
	lines := bufio.NewScanner(out)
	for range flows {
		if !lines.Scan() {
			t.Fatal("the writer ended by itself")
		}
		if last, err = strconv.ParseUint(lines.Text(), 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	return flow.ID(last)
}
