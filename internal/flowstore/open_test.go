package flowstore_test

import (
	"bytes"
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-net/waybill/internal/flow"
	"github.com/waybill-net/waybill/internal/flowstore"
)

// stored returns the path of a closed store with some flows.
func stored(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "flows.db")
	s := open(t, flowstore.Options{Path: path})
	for id := range flow.ID(200) {
		add(t, s, chain(id+1)...)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func execute(t *testing.T, path, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statement); err != nil {
		t.Fatal(err)
	}
}

func TestReopen(t *testing.T) {
	path := stored(t)
	s := open(t, flowstore.Options{Path: path})
	same(t, mustFlow(t, s, 7), assemble(chain(7)))
	for _, name := range []string{path, path + "-wal"} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s may be read by others: %v", filepath.Base(name), info.Mode())
		}
	}
}

// TestEarlierVersions: what earlier versions wrote is there, and goes on.
func TestEarlierVersions(t *testing.T) {
	undo := []string{
		"ALTER TABLE flows DROP COLUMN name; ALTER TABLE hops DROP COLUMN name; PRAGMA user_version = 3",
		"ALTER TABLE flows DROP COLUMN protocol; ALTER TABLE hops DROP COLUMN protocol; PRAGMA user_version = 2",
		`DROP TABLE links; DROP TRIGGER flow_gone;
			CREATE TRIGGER flow_gone AFTER DELETE ON flows BEGIN DELETE FROM hops WHERE flow = old.id; END;
			ALTER TABLE hops ADD COLUMN implied INTEGER NOT NULL DEFAULT 0;
			UPDATE hops SET implied = 1 WHERE kinship = 'implied';
			ALTER TABLE hops DROP COLUMN kinship; PRAGMA user_version = 1`,
	}
	for n := range undo {
		path := stored(t)
		for _, statement := range undo[:n+1] {
			execute(t, path, statement)
		}
		s := open(t, flowstore.Options{Path: path})
		same(t, mustFlow(t, s, 7), assemble(chain(7)))
		late := chain(201)
		for i := range late {
			late[i].Name = "www.example.com"
		}
		add(t, s, late...)
		same(t, mustFlow(t, s, 201), assemble(late))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOtherFiles: what is not ours is an error and stays as it is.
func TestOtherFiles(t *testing.T) {
	newer, foreign := stored(t), filepath.Join(t.TempDir(), "foreign.db")
	execute(t, newer, "PRAGMA user_version = 5")
	execute(t, foreign, "CREATE TABLE recipes (a)")
	for path, want := range map[string]string{
		newer:                      "a newer waybill made it: its schema has version 5",
		foreign:                    "not a flow store",
		t.TempDir():                "flow store",
		"":                         "no path",
		"/nonexistent/dir/flow.db": "no such file or directory",
	} {
		before, _ := os.ReadFile(path)
		s, err := flowstore.Open(flowstore.Options{Path: path})
		if err == nil {
			s.Close()
			t.Errorf("%s was opened", path)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", path, err)
		}
		if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
			t.Errorf("%s was changed", path)
		}
	}
}

func TestCorrupt(t *testing.T) {
	whole, err := os.ReadFile(stored(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"text":      []byte(strings.Repeat("this is no database\n", 100)),
		"cut":       whole[:len(whole)/2],
		"damaged":   append(append(bytes.Clone(whole[:8192]), bytes.Repeat([]byte{0xa5}, 8192)...), whole[16384:]...),
		"truncated": whole[:50],
	} {
		path := filepath.Join(t.TempDir(), "flows.db")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		older := path + ".corrupt-20200101T000000.000Z"
		if err := os.WriteFile(older, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := flowstore.Open(flowstore.Options{Path: path})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		aside, _ := filepath.Glob(path + ".corrupt-*")
		if len(aside) != 1 || aside[0] == older {
			t.Fatalf("%s: moved aside are %v", name, aside)
		}
		if kept, _ := os.ReadFile(aside[0]); !bytes.Equal(kept, content) {
			t.Errorf("%s: what was moved aside is not what was there", name)
		}
		if w := s.Warning(); w == nil || !strings.Contains(w.Error(), aside[0]) || !flowstore.IsCorrupt(w) {
			t.Errorf("%s: the warning is %v", name, w)
		}
		add(t, s, chain(1)...)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		again := open(t, flowstore.Options{Path: path})
		same(t, mustFlow(t, again, 1), assemble(chain(1)))
	}
}

// FuzzOpen: no content of the file crashes the store. Each is opened, put
// aside, or refused, and what is opened can be used.
func FuzzOpen(f *testing.F) {
	whole, err := os.ReadFile(stored(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{}, 0)
	f.Add([]byte("no database"), -1)
	f.Add([]byte{0xff, 0xff}, 28)
	f.Add([]byte{0, 0, 0}, 5000)
	f.Fuzz(func(t *testing.T, patch []byte, at int) {
		content := patch
		if at >= 0 && at < len(whole) {
			content = bytes.Clone(whole)
			copy(content[at:], patch)
		}
		path := filepath.Join(t.TempDir(), "flows.db")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := flowstore.Open(flowstore.Options{Path: path})
		if err != nil {
			return
		}
		defer s.Close()
		s.Flows(context.Background(), flowstore.Query{})
		if err := s.Add(context.Background(), chain(500)); err != nil {
			if !flowstore.IsCorrupt(err) {
				t.Logf("Add: %v", err)
			}
			return
		}
		if got, err := s.Flow(context.Background(), 500); err != nil || len(got.Hops) != 3 {
			t.Errorf("a flow was added and not found: %v", err)
		}
	})
}
