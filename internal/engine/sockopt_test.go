//go:build linux

package engine_test

import (
	"bufio"
	"strings"
	"testing"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/testenv"
)

// TestSocketOptions runs every row of the table of errors in docs/sockopt.md.
func TestSocketOptions(t *testing.T) {
	t.Parallel()
	foreign := foreignBlob(t)
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	p := chain(env, "a")
	p.Filters[0].Context = []byte("12345")
	apply(t, e, p)

	rows := 0
	out := env.Run("a", "python3", "testdata/errors.py", env.Cgroup("app"), foreign)
	for lines := bufio.NewScanner(strings.NewReader(out)); lines.Scan(); rows++ {
		var r struct{ Row, Want, Got string }
		decode(t, lines.Text(), &r)
		if r.Got != r.Want {
			t.Errorf("%s: %s, want %s", r.Row, r.Got, r.Want)
		}
	}
	if rows < 90 {
		t.Errorf("%d rows: the table was not run to its end", rows)
	}
	c := counters(t, e)
	for _, name := range []string{"set", "set_denied", "set_malformed", "set_forged", "set_connected", "set_socket_type", "set_no_memory", "queried"} {
		if c[name] == 0 {
			t.Errorf("counter %s is 0", name)
		}
	}
}

// foreignBlob returns valid records, in hex, of another engine.
func foreignBlob(t *testing.T) string {
	t.Helper()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	apply(t, e, chain(env, "a"))
	return strings.TrimSpace(env.Run("a", "python3", "testdata/blob.py", env.Cgroup("app")))
}
