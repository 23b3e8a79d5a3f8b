//go:build linux

package supervise

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/testenv"
)

const patience = 20 * time.Second

// shell is a command that runs a script in a cgroup of its own.
func shell(t *testing.T, script string) Command {
	t.Helper()
	return Command{Name: "it", Path: "/bin/sh", Args: []string{"-c", script}, Cgroup: testenv.New(t).Cgroup("it")}
}

func start(t *testing.T, c Command) *Process {
	t.Helper()
	p, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop(expired()) })
	return p
}

// expired is the context of a Stop that does not wait for SIGTERM's effect.
func expired() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// await waits until a condition holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// lineBuffer is a writer that the test may read meanwhile.
type lineBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lineBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lineBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestOutputHasNamesInFront(t *testing.T) {
	var out lineBuffer
	c := shell(t, `echo one; printf 'two\nthr' >&2; echo ee; printf rest; exec tail -f /dev/null`)
	c.Output = &out
	p := start(t, c)
	await(t, "three lines", func() bool { return strings.Count(out.String(), "\n") == 3 })
	p.Stop(expired())
	if got, want := out.String(), "it | one\nit | two\nit | three\nit | rest\n"; got != want {
		t.Errorf("output %q, want %q", got, want)
	}
}

func TestProgramRunsAsUserInCgroupAndSession(t *testing.T) {
	c := shell(t, `id -u; id -G; cut -d' ' -f6 /proc/$$/stat; echo $$; grep ^0:: /proc/self/cgroup; exec tail -f /dev/null`)
	c.User = &User{Name: "someone", UID: 4242, GID: 4343, Groups: []uint32{4444}}
	p := start(t, c)
	await(t, "five lines", func() bool { return len(p.Tail()) == 5 })
	lines, pid := p.Tail(), fmt.Sprint(p.State().PID)
	if want := []string{"4242", "4343 4444", pid, pid}; !slices.Equal(lines[:4], want) {
		t.Errorf("uid, groups, session, pid: %q, want %q", lines[:4], want)
	}
	if !strings.HasSuffix(c.Cgroup, strings.TrimPrefix(lines[4], "0::")) {
		t.Errorf("cgroup %s, want %s", lines[4], c.Cgroup)
	}
}

func TestProgramIsStartedAgain(t *testing.T) {
	var (
		mu    sync.Mutex
		exits []string
	)
	c := shell(t, "echo started; exec tail -f /dev/null")
	c.OnExit = func(exit string, wait time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		exits = append(exits, fmt.Sprint(exit, ", ", wait))
	}
	p := start(t, c)
	await(t, "the first program", func() bool { return len(p.Tail()) == 1 })
	first := p.State()
	if !first.Running || first.PID == 0 || first.LastExit != "" {
		t.Fatalf("state %+v after the start", first)
	}
	syscall.Kill(first.PID, syscall.SIGKILL)
	await(t, "a second program", func() bool { return len(p.Tail()) == 2 })
	s := p.State()
	if s.Restarts != 1 || !s.Running || s.PID == first.PID || s.LastExit != "signal: killed" {
		t.Errorf("state %+v after the second start", s)
	}
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"signal: killed, 1s"}; !slices.Equal(exits, want) {
		t.Errorf("OnExit heard %q, want %q", exits, want)
	}
}

// TestChildrenEndWithTheProgram: they could hold the port of the next one.
func TestChildrenEndWithTheProgram(t *testing.T) {
	c := shell(t, `setsid tail -f /dev/null & echo $!; exec tail -f /dev/null`)
	p := start(t, c)
	await(t, "the child", func() bool { return len(p.Tail()) == 1 })
	syscall.Kill(p.State().PID, syscall.SIGKILL)
	await(t, "the end", func() bool { return p.State().LastExit != "" })
	if pid, err := oldest(c.Cgroup); !errors.Is(err, ErrEmpty) {
		t.Errorf("process %d is still there (%v)", pid, err)
	}
	await(t, "a second program", func() bool { return len(p.Tail()) == 2 })
	if s := p.State(); s.Restarts != 1 || !s.Running {
		t.Errorf("state %+v after the second start", s)
	}
}

func TestStopKillsWhatDoesNotObey(t *testing.T) {
	p := start(t, shell(t, `trap 'echo no' TERM; tail -f /dev/null & echo ready; while :; do wait; done`))
	await(t, "ready", func() bool { return len(p.Tail()) == 1 })
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := p.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if s := p.State(); s.Running || s.LastExit != "signal: killed" || s.Restarts != 0 {
		t.Errorf("state %+v after Stop", s)
	}
}

func TestStopLetsItEndOrderly(t *testing.T) {
	p := start(t, shell(t, `trap 'echo bye; exit 3' TERM; tail -f /dev/null & echo ready; while :; do wait; done`))
	await(t, "ready", func() bool { return len(p.Tail()) == 1 })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if s := p.State(); s.LastExit != "exit status 3" {
		t.Errorf("state %+v after Stop", s)
	}
	if got, want := p.Tail(), []string{"ready", "bye"}; !slices.Equal(got, want) {
		t.Errorf("printed %q, want %q", got, want)
	}
}

// TestStopDuringThePause: nothing is started after Stop has returned.
func TestStopDuringThePause(t *testing.T) {
	p := start(t, shell(t, "exit 1"))
	await(t, "the end", func() bool { return p.State().LastExit == "exit status 1" })
	if err := p.Stop(expired()); err != nil {
		t.Fatal(err)
	}
	if s := p.State(); s.Running || s.Restarts != 0 {
		t.Errorf("state %+v after Stop", s)
	}
}

func TestWaitListeningSaysWhy(t *testing.T) {
	address := netip.MustParseAddrPort("127.0.0.1:1")
	p := start(t, shell(t, "echo the port is taken; exit 2"))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := p.WaitListening(ctx, address)
	want := "start it: it ended (exit status 2) before it listened on 127.0.0.1:1; it printed:\n    the port is taken"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}

	p = start(t, shell(t, "exec tail -f /dev/null"))
	err = p.WaitListening(expired(), address)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want one that wraps %v", err, context.Canceled)
	}
}

func TestLogOutlivesTheSupervisor(t *testing.T) {
	log, err := os.OpenFile(filepath.Join(t.TempDir(), "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c := shell(t, `for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo $i; done; exec tail -f /dev/null`)
	c.Log = log
	p := start(t, c)
	await(t, "12 lines", func() bool { return slices.Contains(p.Tail(), "12") })
	if got := p.Tail(); len(got) != keptLines || got[0] != "3" {
		t.Errorf("tail %q, want 3 to 12", got)
	}
	for _, fd := range []string{"1", "2"} {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", p.State().PID, fd))
		if err != nil || target != log.Name() {
			t.Errorf("descriptor %s is %s, %v; want %s", fd, target, err, log.Name())
		}
	}
}

// startAsStranger starts a program that no supervisor knows of.
func startAsStranger(t *testing.T, c Command) *exec.Cmd {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	cmd, err := c.start(null)
	if err != nil {
		t.Fatal(err)
	}
	go cmd.Wait() // reaps it
	return cmd
}

func TestAdopt(t *testing.T) {
	c := shell(t, "echo started; exec tail -f /dev/null")
	if _, err := Adopt(c); !errors.Is(err, ErrEmpty) {
		t.Fatalf("adopt an empty cgroup: error %v, want %v", err, ErrEmpty)
	}
	cmd := startAsStranger(t, Command{
		Name: "it", Path: "/bin/sh", Cgroup: c.Cgroup,
		Args: []string{"-c", "tail -f /dev/null & exec tail -f /dev/null"},
	})
	p, err := Adopt(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop(expired()) })
	if s := p.State(); !s.Running || s.PID != cmd.Process.Pid {
		t.Fatalf("state %+v, want process %d", s, cmd.Process.Pid)
	}
	syscall.Kill(cmd.Process.Pid, syscall.SIGKILL)
	await(t, "a program of our own", func() bool { return len(p.Tail()) == 1 })
	if s := p.State(); s.Restarts != 1 || !s.Running || s.PID == cmd.Process.Pid || s.LastExit != "ended" {
		t.Errorf("state %+v after the restart", s)
	}
}

func TestStopOfAnAdoptedProgram(t *testing.T) {
	c := shell(t, "exec tail -f /dev/null")
	startAsStranger(t, c)
	p, err := Adopt(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.Stop(ctx); err != nil || ctx.Err() != nil {
		t.Errorf("stop: %v, %v; want it to end by SIGTERM", err, ctx.Err())
	}
}
