//go:build linux

package engine_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/flow"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/testenv"
)

const curl = "/usr/bin/curl"

// runCurl asks the origin and returns what it answered.
func runCurl(env *testenv.Env, program, url string) (string, error) {
	return env.TryRun("app", program, "-sS", "--http0.9", "--max-time", "10", url)
}

// TestBlockOriginalProgram: curl is kept from a destination, by itself and
// through a proxy that goes there for it. Others are not.
func TestBlockOriginalProgram(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	p := chain(env, "a")
	p.Filters[0].Ports = append(p.Filters[0].Ports, policy.Port(8081))
	p.Filters = append(p.Filters, policy.Filter{
		Name: "no-curl", Provider: "a", Action: policy.ActionBlock,
		OriginalPrograms: []string{curl}, Ports: []policy.PortRange{policy.Port(originPort)},
	})
	apply(t, e, p)
	proxy := env.Start("a", "python3", "testdata/elsewhere.py", "7001", testenv.Outside4.String(), "8080")

	start := time.Now()
	if out, err := runCurl(env, curl, "http://192.0.2.1:8080/"); err == nil || time.Since(start) > 5*time.Second {
		t.Errorf("curl reached the origin: %s", out)
	}
	if c := counters(t, e); c["forbidden"] != 1 || c["redirected"] != 0 {
		t.Errorf("blocked by itself: counters %v", c)
	}
	// The proxy gets what curl asks of port 8081, and goes to 8080 for it.
	if out, err := runCurl(env, curl, "http://192.0.2.1:8081/"); err == nil {
		t.Errorf("curl reached the origin through a proxy: %s", out)
	}
	if c := counters(t, e); c["forbidden"] != 2 || c["redirected"] != 1 {
		t.Errorf("blocked through a proxy: counters %v", c)
	}
	// A program that is not curl, but as like it as an egg.
	other := filepath.Join(t.TempDir(), "curl")
	copyFile(t, curl, other)
	if out, err := runCurl(env, other, "http://192.0.2.1:8081/"); err != nil || out != answer {
		t.Errorf("another program: %q, %v", out, err)
	}
	proxy.Kill()
}

// copyFile copies a program in a process of its own: what another test starts
// meanwhile would inherit a descriptor of ours that writes, and the program
// could not be executed while it has that ("text file busy").
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", from, to).CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v: %s", from, err, out)
	}
}

// TestBlockByImpliedState: a proxy's connection without records is one that
// its provider has redirected, for filters that block too.
func TestBlockByImpliedState(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	p := chain(env, "a")
	p.Filters = []policy.Filter{{Provider: "a", Action: policy.ActionBlock, States: []policy.State{policy.RedirectedBySelf}}}
	apply(t, e, p)
	var r clientReport
	decode(t, env.Run("a", "python3", "testdata/client.py", "192.0.2.1", "8080"), &r)
	if r.Error != "EACCES" {
		t.Errorf("a's own connection: %+v", r)
	}
	if r := runClient(t, env, "192.0.2.1"); r.Answer != answer {
		t.Errorf("another's: %+v", r)
	}
}

// TestProgramIsReplaced: after an upgrade the path is another inode.
func TestProgramIsReplaced(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	dir := t.TempDir()
	program, upgrade := filepath.Join(dir, "curl"), filepath.Join(dir, "curl.new")
	p := chain(env, "a")
	p.Filters = []policy.Filter{{Provider: "a", Action: policy.ActionBlock, Programs: []string{program}}}
	apply(t, e, p)
	if missing := e.Unmatched(); len(missing) != 1 || !strings.Contains(missing[0], program) {
		t.Errorf("unmatched: %q", missing)
	}

	for _, step := range []string{"installed", "upgraded"} {
		copyFile(t, curl, upgrade)
		if err := os.Rename(upgrade, program); err != nil {
			t.Fatal(err)
		}
		if out, err := runCurl(env, program, "http://192.0.2.1:8080/"); err != nil {
			t.Errorf("%s, before it was looked for: %s, %v", step, out, err)
		}
		if changed, err := e.Refresh(); !changed || err != nil {
			t.Errorf("%s: refresh says %v, %v", step, changed, err)
		}
		if out, err := runCurl(env, program, "http://192.0.2.1:8080/"); err == nil {
			t.Errorf("%s: not blocked: %s", step, out)
		}
	}
	if changed, err := e.Refresh(); changed || err != nil {
		t.Errorf("nothing happened: refresh says %v, %v", changed, err)
	}
	if missing := e.Unmatched(); len(missing) != 0 {
		t.Errorf("unmatched: %q", missing)
	}
}

// TestProviderAppears: a unit is started, and started again, after its policy.
func TestProviderAppears(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startOrigin(t, env)
	p := chain(env, "a")
	p.Providers[0].Cgroup = filepath.Join(env.Scope, "unit.service")
	p.Providers[0].OnDown = policy.Block
	apply(t, e, p)
	if missing := e.Unmatched(); len(missing) != 1 || !strings.Contains(missing[0], "unit.service") {
		t.Errorf("unmatched: %q", missing)
	}
	for range 2 {
		server := env.Start("unit.service", "python3", "testdata/reporter.py", "127.0.0.1", "7001")
		if changed, err := e.Refresh(); !changed || err != nil {
			t.Errorf("refresh says %v, %v", changed, err)
		}
		var r report
		decode(t, env.Run("app", "python3", "testdata/connects.py", "plain"), &r)
		checkReport(t, r, 1)
		server.Kill()
		if err := os.Remove(p.Providers[0].Cgroup); err != nil {
			t.Fatal(err)
		}
	}
}

// TestShadow: everything is counted and reported, and nothing happens.
func TestShadow(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	events := readEvents(t, e)
	startOrigin(t, env)
	p := chain(env, "a", "b")
	p.Filters = append(p.Filters, policy.Filter{Provider: "b", Action: policy.ActionBlock})
	p.Shadow = true
	apply(t, e, p)
	if got, want := runClient(t, env, "127.0.0.1"), (clientReport{Peer: "127.0.0.1 8080", Answer: answer}); got != want {
		t.Errorf("client got %+v, want %+v", got, want)
	}
	if c := counters(t, e); c["redirected"] != 0 || c["forbidden"] != 0 || c["shadowed"] != 2 {
		t.Errorf("counters: %v", c)
	}
	event := events.next(flow.Passed)
	if len(event.Skipped) != 2 || event.Skipped[0] != (flow.Skip{Provider: "a", Reason: flow.SkipShadow}) {
		t.Errorf("event: %+v", event)
	}
}

// eventReader reads the events of one engine.
type eventReader struct {
	t      *testing.T
	events *engine.Events
}

func readEvents(t *testing.T, e *engine.Engine) *eventReader {
	t.Helper()
	events, err := e.Events()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { events.Close() })
	return &eventReader{t, events}
}

// next returns the next event, which must be of this kind.
func (r *eventReader) next(kind flow.Kind) flow.Event {
	r.t.Helper()
	r.events.SetDeadline(time.Now().Add(10 * time.Second))
	event, err := r.events.Read()
	if err != nil {
		r.t.Fatalf("wait for %s: %v", kind, err)
	}
	if event.Kind != kind {
		r.t.Errorf("event %+v, want one of kind %s", event, kind)
	}
	return event
}

// TestEvents: what a connection through one proxy tells about itself.
func TestEvents(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	events := readEvents(t, e)
	startOrigin(t, env)
	p := chain(env, "a")
	p.Filters[0].Name = "web"
	apply(t, e, p)
	startPython(env, "a", "127.0.0.1")
	if got, want := runClient(t, env, "127.0.0.1"), (clientReport{Peer: "127.0.0.1 8080", Answer: answer}); got != want {
		t.Errorf("client got %+v, want %+v", got, want)
	}

	first := events.next(flow.Redirected)
	if first.Hop != 0 || first.Provider != "a" || first.Filter != "web" || first.State != "not-redirected" ||
		first.Dst.String() != "127.0.0.1:8080" || len(first.Process.Args) != 4 || first.Process.Args[1] != "testdata/client.py" {
		t.Errorf("the application's connection: %+v", first)
	}
	accepted := events.next(flow.Accepted)
	if accepted.Flow != first.Flow || accepted.Hop != 0 || accepted.Provider != "a" || accepted.Time.Before(first.Time) {
		t.Errorf("accepted: %+v", accepted)
	}
	passed := events.next(flow.Passed)
	if passed.Flow != first.Flow || passed.Hop != 1 || passed.Process.PID == first.Process.PID ||
		len(passed.Skipped) != 1 || passed.Skipped[0] != (flow.Skip{Provider: "a", Reason: flow.SkipState}) {
		t.Errorf("the proxy's connection: %+v", passed)
	}
	closed := map[int]flow.Event{}
	for range 2 {
		event := events.next(flow.Closed)
		closed[event.Hop] = event
	}
	if c := closed[0]; c.Flow != first.Flow || c.Received != uint64(len(answer)) || c.Sent != uint64(len("GET / HTTP/1.0\r\n\r\n")) || c.Duration <= 0 || c.Error != "" {
		t.Errorf("closed: %+v", c)
	}
	if c := closed[1]; c.Flow != first.Flow || c.Received != uint64(len(answer)) {
		t.Errorf("closed: %+v", c)
	}
}
