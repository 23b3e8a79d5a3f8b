//go:build linux

package engine_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/testenv"
)

// TestState: what is pinned works on without a process, is adopted with its
// policy and counters, and goes without a trace.
func TestState(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	startOrigin(t, env)
	dir := env.StateDir()
	opts := engine.Options{State: dir, Version: "1"}
	first := open(t, env, opts)
	if first.Adopted() {
		t.Error("adopted what was not there")
	}
	apply(t, first, chain(env, "a"))
	startReporter(env, "a", "127.0.0.1")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	checkPasses(t, env, 1)

	opts.Version = "2"
	second := open(t, env, opts)
	if !second.Adopted() {
		t.Error("not adopted")
	}
	if info, err := engine.InspectState(dir); err != nil || info.Version != "2" || info.Scope != env.Scope || !info.Alive {
		t.Errorf("state: %+v, %v", info, err)
	}
	if c := counters(t, second); c["redirected"] != 1 {
		t.Errorf("counters were not adopted: %v", c)
	}
	checkPasses(t, env, 1) // under the old policy, by the new programs
	apply(t, second, chain(env))
	checkPasses(t, env, 0)
	if n, err := second.InFlight(); err != nil || n != 0 {
		t.Errorf("in flight: %d, %v", n, err)
	}

	if err := engine.Remove(dir); !errors.Is(err, engine.ErrInUse) {
		t.Errorf("remove while it is open: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if err := engine.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := engine.Remove(dir); !errors.Is(err, engine.ErrNoState) {
		t.Errorf("remove once more: %v", err)
	}
	if left, _ := filepath.Glob(dir + "*"); len(left) > 0 {
		t.Errorf("left in the file system: %v", left)
	}
	attached, err := engine.AttachedTo(env.Scope)
	if err != nil || slices.ContainsFunc(attached, func(a engine.Attached) bool { return a.Cgroup == env.Scope }) {
		t.Errorf("still attached: %+v, %v", attached, err)
	}
}

// checkPasses makes one connection to the origin, which has been started, and
// checks how many proxies it passes.
func checkPasses(t *testing.T, env *testenv.Env, proxies int) {
	t.Helper()
	if proxies == 0 {
		if got, want := runClient(t, env, "127.0.0.1"), (clientReport{Peer: "127.0.0.1 8080", Answer: answer}); got != want {
			t.Errorf("client got %+v, want %+v", got, want)
		}
		return
	}
	var r report
	decode(t, env.Run("app", "python3", "testdata/connects.py", "plain"), &r)
	checkReport(t, r, proxies)
}

// TestStateOfAnotherScope is refused, and so is a place that can hold no pins.
func TestStateErrors(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	dir := env.StateDir()
	e := open(t, env, engine.Options{State: dir})
	if _, err := engine.Open(engine.Options{Scope: env.Scope, State: dir}); !errors.Is(err, engine.ErrInUse) {
		t.Errorf("open twice: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Open(engine.Options{Scope: env.Cgroup("other"), State: dir}); err == nil {
		t.Error("adopted for another scope")
	}
	if _, err := engine.Open(engine.Options{Scope: env.Scope, State: filepath.Join(t.TempDir(), "waybill")}); err == nil {
		t.Error("pinned in a file system that is none of BPF")
	}
	if err := engine.Remove(dir); err != nil {
		t.Error(err)
	}
}

// TestStateOfDeadScope: links to a cgroup that was removed look healthy and do
// nothing. One of the same name is another cgroup.
func TestStateOfDeadScope(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	dir, scope := env.StateDir(), env.Cgroup("scope")
	opts := engine.Options{Scope: scope, State: dir}
	e, err := engine.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	e.Close()
	if err := os.Remove(scope); err != nil {
		t.Fatal(err)
	}
	env.Cgroup("scope")
	if info, err := engine.InspectState(dir); err != nil || info.Alive {
		t.Errorf("state: %+v, %v", info, err)
	}
	if e, err = engine.Open(opts); err != nil {
		t.Fatal(err)
	}
	if e.Adopted() {
		t.Error("adopted programs that are attached to nothing")
	}
	e.Close()
	if err := engine.Remove(dir); err != nil {
		t.Error(err)
	}
}

// TestStateOfAnotherUser is refused: where everybody may make directories,
// anybody can take its name.
func TestStateOfAnotherUser(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	dir := env.StateDir()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	e, err := engine.Open(engine.Options{Scope: env.Scope, State: dir})
	if err == nil {
		e.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "another user's") {
		t.Errorf("open: %v", err)
	}
}
