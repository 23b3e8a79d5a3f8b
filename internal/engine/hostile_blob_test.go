//go:build linux

package engine_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/testenv"
)

const mutations = 1_000_000

// TestMutatedBlobs sets a million altered blobs as a process that has the
// right to. None is accepted, and unaltered ones in between are.
func TestMutatedBlobs(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	apply(t, e, chain(env, names...))
	for i, name := range names[1:] {
		env.Start(name, "python3", "testdata/listen.py", "127.0.0.1", strconv.Itoa(7002+i))
	}
	blobs := strings.Fields(env.Run("a", "python3", "testdata/blobs.py", env.Cgroup("app"), strconv.Itoa(len(names))))
	if len(blobs) != len(names) || len(blobs[7]) != 2*(80+8*hopSize+sealSize) {
		t.Fatalf("blobs: %q", blobs)
	}
	before := counters(t, e)
	var sum mutateSummary
	decode(t, runRole(t, env, "a", "mutate", append([]string{"1", strconv.Itoa(mutations)}, blobs...)...), &sum)
	t.Log(sum)
	if len(sum.Accepted) != 0 || sum.Tried != mutations || sum.Refused[syscall.EINVAL.Error()] != mutations {
		t.Errorf("%v; accepted: %.10q", sum, sum.Accepted)
	}
	if sum.Controls == 0 || sum.Valid != sum.Controls {
		t.Errorf("unaltered blobs are refused, too: %v", sum)
	}
	after := counters(t, e)
	malformed, forged := after["set_malformed"]-before["set_malformed"], after["set_forged"]-before["set_forged"]
	t.Logf("malformed: %d, of the right shape with a wrong seal: %d", malformed, forged)
	if malformed+forged != mutations || forged < mutations/4 {
		t.Errorf("counted %d malformed and %d forged", malformed, forged)
	}
}

// runRole plays a role in a process of the cgroup and returns what it printed.
func runRole(t *testing.T, env *testenv.Env, cgroup, role string, args ...string) string {
	t.Helper()
	cmd := roleCommand(env, cgroup, role, args...)
	var out strings.Builder
	cmd.Stdout = &out
	env.Inside(cmd.Start)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%s: %v\n%s", role, err, out.String())
	}
	return out.String()
}

// trySet sets records, in hex, as nobody in a cgroup, and returns the errno's
// name.
func trySet(env *testenv.Env, cgroup, blob string) string {
	return strings.TrimSpace(env.Run(cgroup, "python3", "-c", `
import socket, sys
sys.path.insert(0, "testdata")
import wb
wb.drop_privileges()
print(wb.name(wb.set_errno(socket.socket(), bytes.fromhex(sys.argv[1]))))
`, blob))
}

// TestOlderKey: a blob is as good as its key. One engine does not take
// another's; a later one on the same cgroup does not, unless it has adopted
// the state, and the key with it.
func TestOlderKey(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	startOrigin(t, env)
	opts := engine.Options{Scope: env.Scope, State: env.StateDir()}
	openAgain := func() *engine.Engine {
		e, err := engine.Open(opts)
		if err != nil {
			t.Fatal(err)
		}
		apply(t, e, chain(env, "a"))
		return e
	}
	e := openAgain()
	blob := strings.TrimSpace(env.Run("a", "python3", "testdata/blob.py", env.Cgroup("app")))
	if got := trySet(env, "a", blob); got != "ok" {
		t.Errorf("under its own key: %s", got)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = openAgain()
	if got := trySet(env, "a", blob); !e.Adopted() || got != "ok" {
		t.Errorf("adopted: %t, and the blob: %s", e.Adopted(), got)
	}
	if err := errors.Join(e.Close(), engine.Remove(opts.State)); err != nil {
		t.Fatal(err)
	}
	e = openAgain()
	if got := trySet(env, "a", blob); got != "EINVAL" {
		t.Errorf("under a later key: %s, want EINVAL", got)
	}
	if err := errors.Join(e.Close(), engine.Remove(opts.State)); err != nil {
		t.Error(err)
	}
}

// TestReplay: what somebody can do with records that are not his. An
// application reads its own; from there they can reach anybody.
func TestReplay(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	p := chain(env, "a", "b", "c")
	for i := range p.Filters {
		p.Filters[i].Ports = []policy.PortRange{policy.Port(8080), policy.Port(8081)}
	}
	apply(t, e, p)
	for _, name := range []string{"a", "b", "c"} {
		startReporter(env, name, "127.0.0.1")
	}
	var taken struct {
		Blob, Set string
		Report    report
	}
	decode(t, env.Run("app", "python3", "testdata/replay.py", "take"), &taken)
	if taken.Report.Hops != 1 || taken.Set != "EACCES" {
		t.Errorf("the application that has read its own records: %+v", taken)
	}
	if got := trySet(env, "app", taken.Blob); got != "EACCES" {
		t.Errorf("set by a process outside every provider's set: %s, want EACCES", got)
	}
	var b struct{ Report report }
	decode(t, env.Run("b", "python3", "testdata/replay.py", "use", taken.Blob, "8081"), &b)
	// The connection passes for one of the application's, long after that has
	// ended and to where it never went: its history, its origin. It can not
	// pass by a provider that the records do not name.
	if r := b.Report; r.Hops != 2 || r.Flow != taken.Report.Flow || r.PID != taken.Report.PID || r.Dst != "192.0.2.1 8081" {
		t.Errorf("set by another provider's process: %+v, want the flow %+v", r, taken.Report)
	}
	if pc, err := e.ProviderCounters(); err != nil || pc["a"].Redirected != 1 || pc["b"].Redirected != 1 || pc["c"].Redirected != 0 {
		t.Errorf("provider counters: %+v, %v", pc, err)
	}
}

// TestSetByIOUring: whatever sets records, it is the process's right that
// counts, also when a thread of the kernel's does it.
func TestSetByIOUring(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	apply(t, e, chain(env, "a"))
	program := compile(t, "testdata/uring_set.c", "-luring")
	if err := os.Chmod(filepath.Dir(program), 0o755); err != nil {
		t.Fatal(err)
	}
	blob := strings.TrimSpace(env.Run("a", "python3", "testdata/blob.py", env.Cgroup("app")))
	forged := "00" + blob[2:]
	for _, mode := range []string{"ring", "sqpoll"} {
		for _, tt := range []struct{ cgroup, blob, want string }{
			{"a", blob, "ok"}, {"a", forged, "EINVAL"}, {"app", blob, "EACCES"},
		} {
			out := env.Run(tt.cgroup, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program, mode, tt.blob)
			if got := strings.TrimSpace(out); got != tt.want {
				t.Errorf("%s in cgroup %s: %s, want %s", mode, tt.cgroup, got, tt.want)
			}
		}
	}
}
