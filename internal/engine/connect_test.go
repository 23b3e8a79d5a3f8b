//go:build linux

package engine_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/testenv"
)

// report is what testdata/reporter.py saw of a connection.
type report struct {
	State, Hops    int
	Dst            string
	PID, TGID, UID int
	Start, Flow    uint64
	NetNS          uint64
	Comm           string
	Context        string
	Error          string
}

const (
	notRedirected = iota
	bySelf
	byOther
	previouslyBySelf
)

func startReporter(env *testenv.Env, name, address string, more ...string) *testenv.Server {
	port := strconv.Itoa(7001 + int(name[0]-'a'))
	return env.Start(name, "python3", append([]string{"testdata/reporter.py", address, port}, more...)...)
}

// TestWaysToConnect connects to the origin in every way there is, from an
// application and from a proxy that carries records, and looks at what the
// next proxy sees.
func TestWaysToConnect(t *testing.T) {
	for _, way := range []struct {
		name    string
		carried bool // makes sense only with records
	}{
		{name: "plain"},
		{name: "nonblocking"},
		{name: "after_refused"},
		{name: "after_stuck"},
		{name: "set_again_after_failure", carried: true},
		{name: "fast_open_sendto"},
		{name: "fast_open_connect"},
		{name: "bound_source"},
		{name: "bound_to_loopback_device"},
		{name: "from_a_thread"},
	} {
		t.Run(way.name+"/carried", func(t *testing.T) {
			t.Parallel()
			env := testenv.New(t)
			env.Sysctl("net/ipv4/tcp_fastopen", "3")
			e := open(t, env, engine.Options{})
			startOrigin(t, env)
			apply(t, e, chain(env, "a", "b"))
			startReporter(env, "b", "127.0.0.1")
			var r report
			decode(t, env.Run("a", "python3", "testdata/connects.py", way.name, env.Cgroup("app")), &r)
			checkReport(t, r, 2)
			checkNothingInFlight(t, e)
		})
		if way.carried {
			continue
		}
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			env := testenv.New(t)
			env.Sysctl("net/ipv4/tcp_fastopen", "3")
			e := open(t, env, engine.Options{})
			startOrigin(t, env)
			apply(t, e, chain(env, "a"))
			startReporter(env, "a", "127.0.0.1")
			var r report
			decode(t, env.Run("app", "python3", "testdata/connects.py", way.name), &r)
			checkReport(t, r, 1)
			if r.Comm != "python3" || r.TGID == 0 || r.Start == 0 {
				t.Errorf("origin: %+v", r)
			}
			if (r.PID != r.TGID) != (way.name == "from_a_thread") {
				t.Errorf("pid %d, tgid %d", r.PID, r.TGID)
			}
			checkNothingInFlight(t, e)
		})
	}
}

func checkReport(t *testing.T, r report, hops int) {
	t.Helper()
	if r.Error != "" || r.Hops != hops || r.State != bySelf || r.Dst != "127.0.0.1 8080" || r.Flow == 0 {
		t.Errorf("proxy saw %+v, want %d hops to 127.0.0.1 8080", r, hops)
	}
}

// checkNothingInFlight checks the books: what departed has arrived or was
// taken back.
func checkNothingInFlight(t *testing.T, e *engine.Engine) {
	t.Helper()
	n, err := e.InFlight()
	if err != nil || n != 0 {
		t.Errorf("%d in flight, %v", n, err)
	}
	c := counters(t, e)
	if c["departed"] != c["arrived"]+c["abandoned"] || c["lost"] != 0 || c["diverted"] != 0 {
		t.Errorf("counters: %v", c)
	}
}

func TestIOUring(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	startOrigin(t, env)
	e := open(t, env, engine.Options{})
	apply(t, e, chain(env, "a"))
	startReporter(env, "a", "127.0.0.1")
	uring := compile(t, "testdata/uring.c", "-luring")
	for _, mode := range []string{"ring", "sqpoll", "async"} {
		var r report
		decode(t, env.Run("app", uring, mode, "127.0.0.1", strconv.Itoa(originPort)), &r)
		checkReport(t, r, 1)
		if r.Comm != "uring" {
			t.Errorf("%s: the connection is said to be of %q", mode, r.Comm)
		}
	}
	checkNothingInFlight(t, e)
}

// compile builds a C program, which must be without warnings.
func compile(t *testing.T, source string, libs ...string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), filepath.Base(source[:len(source)-len(filepath.Ext(source))]))
	args := append([]string{"-O2", "-Wall", "-Wextra", "-Werror", "-I../../include", "-o", program, source}, libs...)
	if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("gcc %v: %v\n%s", args, err, out)
	}
	// Programs in tests run as other users, too.
	if err := os.Chmod(program, 0o755); err != nil {
		t.Fatal(err)
	}
	return program
}

// TestStates asks for the state of one flow at every place.
func TestStates(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	apply(t, e, chain(env, "a", "b"))
	startReporter(env, "b", "127.0.0.1")
	var r struct{ Fresh, Accepted, Upstream, Other []int }
	decode(t, env.Run("a", "python3", "testdata/states.py", env.Cgroup("app"), env.Cgroup("c")), &r)
	for _, tt := range []struct {
		what        string
		got         []int
		state, hops int
	}{
		{"connection that nobody wants, for a", r.Fresh, notRedirected, 0},
		{"accepted by a, for a", r.Accepted, bySelf, 1},
		{"opened by a, redirected to b, for a", r.Upstream, previouslyBySelf, 2},
	} {
		if len(tt.got) != 2 || tt.got[0] != tt.state || tt.got[1] != tt.hops {
			t.Errorf("%s: %v, want [%d %d]", tt.what, tt.got, tt.state, tt.hops)
		}
	}
	// Provider c comes into the policy later: to it, the flow was redirected by others.
	p := chain(env, "a", "b", "c")
	apply(t, e, p)
	decode(t, env.Run("a", "python3", "testdata/states.py", env.Cgroup("app"), env.Cgroup("c")), &r)
	if len(r.Other) != 2 || r.Other[0] != byOther || r.Other[1] != 1 {
		t.Errorf("accepted by a, for c: %v, want [%d 1]", r.Other, byOther)
	}
}
