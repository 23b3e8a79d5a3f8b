//go:build linux

package engine_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/flow"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/testenv"
)

// TestStrayState: state whose maker was killed before it was finished goes
// when other state is adopted. Its programs would take what is the others'.
func TestStrayState(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	startOrigin(t, env)
	dir := env.StateDir()
	for _, state := range []string{dir, dir + "-new-99999"} {
		e, err := engine.Open(engine.Options{Scope: env.Scope, State: state})
		if err != nil {
			t.Fatal(err)
		}
		e.Close()
	}
	e := open(t, env, engine.Options{State: dir})
	if left, _ := filepath.Glob(dir + "-new-*"); len(left) > 0 {
		t.Errorf("left after an adoption: %v", left)
	}
	apply(t, e, chain(env, "a"))
	startReporter(env, "a", "127.0.0.1")
	checkPasses(t, env, 1)
	e.Close()
	if err := engine.Remove(dir); err != nil {
		t.Error(err)
	}
}

// TestInsideAnother: an engine of a cgroup further in answers for its own
// sockets, and the one around it does not speak over it.
func TestInsideAnother(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	open(t, env, engine.Options{})
	inner, err := engine.Open(engine.Options{Scope: env.Cgroup("inner")})
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	p := chain(env, "a")
	p.Providers[0].Cgroup = env.Cgroup("inner/a")
	apply(t, inner, p)
	startOrigin(t, env)
	env.Start("inner/a", "python3", "../../examples/python/proxy.py", "127.0.0.1", "7001")
	var r clientReport
	decode(t, env.Run("inner/app", "python3", "testdata/client.py", "127.0.0.1", "8080"), &r)
	if want := (clientReport{Peer: "127.0.0.1 8080", Answer: answer}); r != want {
		t.Errorf("client got %+v, want %+v", r, want)
	}
	c, err := inner.Counters()
	if err != nil || c["redirected"] != 1 || c["set"] != 1 {
		t.Errorf("counters of the inner one: %v, %v", c, err)
	}
}

// TestPathThatCanNotBeLookedUp: the owner of one program that the policy names
// must not keep the rest of the policy from being followed.
func TestPathThatCanNotBeLookedUp(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	startOrigin(t, env)
	e := open(t, env, engine.Options{})
	program := filepath.Join(t.TempDir(), "tool")
	p := chain(env, "a")
	p.Providers[0].Cgroup = filepath.Join(env.Scope, "unit.service")
	p.Filters = append(p.Filters, policy.Filter{Provider: "a", Action: policy.ActionBlock, Programs: []string{program}})
	apply(t, e, p)
	if err := os.Symlink("tool", program); err != nil {
		t.Fatal(err)
	}
	env.Start("unit.service", "python3", "testdata/reporter.py", "127.0.0.1", "7001")
	if changed, err := e.Refresh(); !changed || err != nil {
		t.Errorf("refresh says %v, %v", changed, err)
	}
	checkPasses(t, env, 1)
}

// TestHopsAfterImplied: the flow that begins at a proxy which forwards nothing
// that it accepted counts from 0, one by one.
func TestHopsAfterImplied(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	events := readEvents(t, e)
	startOrigin(t, env)
	apply(t, e, chain(env, "a", "b"))
	startPython(env, "b", "127.0.0.1")
	var r clientReport
	decode(t, env.Run("a", "python3", "testdata/client.py", "127.0.0.1", "8080"), &r)
	if r.Answer != answer {
		t.Fatalf("client got %+v", r)
	}
	outcomes := make(map[flow.ID][]int) // hops by flow
	events.events.SetDeadline(time.Now().Add(10 * time.Second))
	for n := 0; n < 2; {
		event, err := events.events.Read()
		if err != nil {
			t.Fatal(err)
		}
		if event.Kind == flow.Redirected || event.Kind == flow.Passed {
			outcomes[event.Flow] = append(outcomes[event.Flow], event.Hop)
			n++
		}
	}
	for _, hops := range outcomes {
		if !slices.Equal(hops, []int{0, 1}) || len(outcomes) != 1 {
			t.Errorf("flows: %v, want one of two connections", outcomes)
		}
	}
}
