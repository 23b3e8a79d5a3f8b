//go:build linux

package engine_test

import (
	"testing"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/testenv"
)

// inNamespace plays a scenario of testdata/namespaces.py in app/inner.
func inNamespace(t *testing.T, env *testenv.Env, into any, scenario string, args ...string) {
	t.Helper()
	args = append([]string{"testdata/namespaces.py", scenario, env.Cgroup("app"), env.Cgroup("a")}, args...)
	decode(t, env.Run("app/inner", "python3", args...), into)
}

// TestUserNamespace: root of a user namespace of one's own, who may even
// repair TCP connections there, has no right to SET.
func TestUserNamespace(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	apply(t, e, chain(env, "a"))
	blob := env.Run("a", "python3", "testdata/blob.py", env.Cgroup("app"))
	var r struct{ Set string }
	inNamespace(t, env, &r, "user_namespace", blob)
	if c := counters(t, e); r.Set != "EACCES" || c["set_denied"] != 1 {
		t.Errorf("set: %s; counters: %v", r.Set, c)
	}
}

// TestOwnNetworkNamespace: a provider whose proxy is not in a network
// namespace is down there, whoever listens on its address.
func TestOwnNetworkNamespace(t *testing.T) {
	for onDown, want := range map[policy.OnDown]struct{ Answer, Error, Stranger string }{
		policy.Bypass: {Answer: "own origin"},
		policy.Block:  {Error: "EACCES"},
	} {
		t.Run(onDown.String(), func(t *testing.T) {
			t.Parallel()
			env := testenv.New(t)
			e := open(t, env, engine.Options{})
			p := chain(env, "a")
			p.Providers[0].OnDown = onDown
			apply(t, e, p)
			startReporter(env, "a", "127.0.0.1")
			got := want
			got.Answer, got.Error = "", ""
			inNamespace(t, env, &got, "network_namespace")
			if c := counters(t, e); got != want || c["down_foreign_listener"] != 1 {
				t.Errorf("got %+v, want %+v; counters: %v", got, want, c)
			}
		})
	}
}

// TestCgroupNamespace: in a namespace of its own a process is where it was.
func TestCgroupNamespace(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	p := chain(env, "a")
	p.Filters[0].Cgroups = []string{env.Cgroup("app")}
	apply(t, e, p)
	startReporter(env, "a", "127.0.0.1")
	var r struct {
		Hops         int
		Same         bool
		Moved, Above string
	}
	inNamespace(t, env, &r, "cgroup_namespace")
	if r.Hops != 1 || !r.Same || r.Moved != "EACCES" || r.Above != "ENOENT" {
		t.Errorf("got %+v", r)
	}
}

// TestDelegatedCgroup: a user who owns a cgroup can not leave it, and so not
// become a proxy. What he can leave is a cgroup below it: filters must name
// the one that he can not.
func TestDelegatedCgroup(t *testing.T) {
	for named, want := range map[string]struct {
		Inner, Sibling int
		Moved, Out, Up string
	}{
		"app":       {Inner: 1, Sibling: 1, Moved: "ok", Out: "EACCES", Up: "EACCES"},
		"app/inner": {Inner: 1, Sibling: 0, Moved: "ok", Out: "EACCES", Up: "EACCES"},
	} {
		t.Run(named, func(t *testing.T) {
			t.Parallel()
			env := testenv.New(t)
			e := open(t, env, engine.Options{})
			startOrigin(t, env)
			p := chain(env, "a")
			p.Filters[0].Cgroups = []string{env.Cgroup(named)}
			apply(t, e, p)
			startReporter(env, "a", "127.0.0.1")
			got := want
			got.Inner, got.Sibling, got.Moved, got.Out, got.Up = -1, -1, "", "", ""
			inNamespace(t, env, &got, "delegated_cgroup")
			if got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}
