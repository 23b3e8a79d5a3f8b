package flowstore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/flowstore"
)

func TestSQL(t *testing.T) {
	s := open(t, flowstore.Options{})
	add(t, s, chain(1)...)
	columns, rows, err := s.SQL(context.Background(), "SELECT n, kind, accepted FROM hops ORDER BY n DESC LIMIT 1")
	if err != nil || strings.Join(columns, " ") != "n kind accepted" || len(rows) != 1 {
		t.Fatal(columns, rows, err)
	}
	if r := rows[0]; r[0] != int64(2) || r[1] != "passed" || r[2] != nil {
		t.Errorf("got %#v", r)
	}
}

// TestSQLCanNotWrite tries what SQLite has to change a file, this one or
// another.
func TestSQLCanNotWrite(t *testing.T) {
	dir := t.TempDir()
	s := open(t, flowstore.Options{Path: filepath.Join(dir, "flows.db")})
	add(t, s, chain(1)...)
	other := filepath.Join(dir, "other.db")
	for _, query := range []string{
		"DELETE FROM flows",
		"SELECT 1; DELETE FROM flows",
		"PRAGMA query_only = 0; DELETE FROM flows",
		"DROP TABLE hops",
		"UPDATE flows SET outcome = 'done' RETURNING id",
		"INSERT INTO skips VALUES ('1', 1, 1, 'a', 'b')",
		"CREATE TABLE more (a)",
		"PRAGMA user_version = 9",
	} {
		if _, rows, err := s.SQL(context.Background(), query); !errors.Is(err, flowstore.ErrReadOnly) {
			t.Errorf("%s: got %v, %v; want ErrReadOnly", query, rows, err)
		}
	}
	for _, query := range []string{
		"PRAGMA journal_mode = delete",
		"PRAGMA query_only = 0; PRAGMA journal_mode = delete; DELETE FROM flows",
		"PRAGMA writable_schema = 1; DELETE FROM sqlite_schema",
		"ATTACH '" + other + "' AS other",
		"PRAGMA query_only = 0; ATTACH '" + other + "' AS other; CREATE TABLE other.t (a)",
		"VACUUM INTO '" + other + "'",
		"PRAGMA query_only = 0; VACUUM INTO '" + other + "'",
		"SELECT load_extension('" + other + "')",
		"SELECT writefile('" + other + "', 'x')",
		"SELECT readfile('/etc/passwd')",
	} {
		if _, rows, err := s.SQL(context.Background(), query); err == nil {
			t.Errorf("%s: got %v", query, rows)
		}
	}
	if _, err := os.Stat(other); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("another file was made: %v", err)
	}
	same(t, mustFlow(t, s, 1), assemble(chain(1)))
}

func TestSQLIsBounded(t *testing.T) {
	s := open(t, flowstore.Options{})
	const endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) "
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := s.SQL(ctx, endless+"SELECT count(*) FROM c"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("endless work: got %v", err)
	}
	if _, rows, err := s.SQL(context.Background(), endless+"SELECT x FROM c"); err == nil || !strings.Contains(err.Error(), "LIMIT") {
		t.Errorf("endless rows: got %d, %v", len(rows), err)
	}
	if _, _, err := s.SQL(context.Background(), "SELECT hex(zeroblob(100000000))"); err == nil {
		t.Errorf("a value of 200 MB was given")
	}
	add(t, s, chain(1)...)
}

func TestSQLMistake(t *testing.T) {
	s := open(t, flowstore.Options{})
	for query, want := range map[string]string{
		"SELECT colour FROM flows":     "no such column: colour",
		`SELECT id FROM flows WHERE "`: "unrecognized token",
		`SELECT "colour" FROM flows`:   "no such column",
	} {
		if _, _, err := s.SQL(context.Background(), query); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", query, err, want)
		}
	}
}
