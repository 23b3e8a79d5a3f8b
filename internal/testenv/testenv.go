//go:build linux

// Package testenv gives each test on the real kernel a cgroup and a network
// namespace of its own and starts programs inside them. Nothing of it outlives
// the test, not even if the test is killed.
package testenv

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/cgroup"
	"github.com/waybill-net/waybill/internal/netns"
)

// Env is the surroundings of one test.
type Env struct {
	t     testing.TB
	netns *netns.NetNS
	bpffs *os.File // nil: none yet

	Scope string // the cgroup to attach to
}

var serial atomic.Int32

// New makes a scope and a network namespace with a loopback device that also
// has the addresses [Outside4] and [Outside6]. The test must run as root:
// without it the kernel side can not be tested, and a skip would hide that.
func New(t testing.TB) *Env {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: it attaches programs to a cgroup of its own")
	}
	temp, err := cgroup.CreateTemporary(fmt.Sprintf("waybill-test-%d-%d", os.Getpid(), serial.Add(1)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := temp.Close(); err != nil {
			t.Error(err)
		}
	})
	return &Env{t: t, Scope: temp.Dir, netns: newNetNS(t)}
}

// Cgroup returns the directory of the cgroup name below the scope and makes
// it if need be.
func (e *Env) Cgroup(name string) string {
	e.t.Helper()
	dir := filepath.Join(e.Scope, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		e.t.Fatal(err)
	}
	return dir
}

// Command prepares a program that will run in the cgroup name below the scope.
func (e *Env) Command(cgroupName, program string, args ...string) *exec.Cmd {
	e.t.Helper()
	dir, err := os.Open(e.Cgroup(cgroupName))
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { dir.Close() })
	cmd := exec.Command(program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	cmd.Stderr = &lineWriter{prefix: cgroupName + ": ", line: func(line string) { e.t.Log(line) }}
	return cmd
}

// runTimeout ends a program that hangs, so that its test fails with its name.
const runTimeout = 60 * time.Second

// Run runs a program in the cgroup name below the scope and returns what it
// printed. The test fails if the program does.
func (e *Env) Run(cgroupName, program string, args ...string) string {
	e.t.Helper()
	out, err := e.TryRun(cgroupName, program, args...)
	if err != nil {
		e.t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return out
}

// TryRun is Run for programs that may fail.
func (e *Env) TryRun(cgroupName, program string, args ...string) (string, error) {
	e.t.Helper()
	var out bytes.Buffer
	cmd := e.Command(cgroupName, program, args...)
	cmd.Stdout = &out
	if err := e.netns.Do(cmd.Start); err != nil {
		return "", err
	}
	timer := time.AfterFunc(runTimeout, func() { cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Wait()
	return out.String(), err
}

// Server is a program that a test started and that prints the line "ready"
// when it listens.
type Server struct {
	Cmd    *exec.Cmd
	exited chan struct{}
	last   string // line that it printed; to be read after exited is closed
}

// Start starts a server in the cgroup name below the scope, waits for its
// "ready", and stops it when the test ends.
func (e *Env) Start(cgroupName, program string, args ...string) *Server {
	e.t.Helper()
	return e.StartCommand(e.Command(cgroupName, program, args...))
}

// StartCommand is Start for a command that was prepared with Command.
func (e *Env) StartCommand(cmd *exec.Cmd) *Server {
	e.t.Helper()
	s := &Server{Cmd: cmd, exited: make(chan struct{})}
	ready := make(chan struct{})
	prefix := cmd.Stderr.(*lineWriter).prefix
	cmd.Stdout = &lineWriter{prefix: prefix, line: func(line string) {
		if s.last = line; line == prefix+"ready" {
			close(ready)
			return
		}
		e.t.Log(line)
	}}
	// A child of the server's may hold its output open after its end.
	cmd.WaitDelay = time.Second
	if err := e.netns.Do(cmd.Start); err != nil {
		e.t.Fatal(err)
	}
	go func() {
		defer close(s.exited)
		cmd.Wait()
	}()
	e.t.Cleanup(s.Kill)
	select {
	case <-ready:
	case <-s.exited:
		e.t.Fatalf("%s: it ended before it was ready", cmd)
	case <-time.After(runTimeout):
		e.t.Fatalf("%s: not ready after %v", cmd, runTimeout)
	}
	return s
}

// Stop sends the server a signal, waits for its end, and returns the last line
// that it printed.
func (s *Server) Stop(signal os.Signal) string {
	s.Cmd.Process.Signal(signal)
	return s.Wait()
}

// Wait waits for the server's end and returns the last line that it printed.
func (s *Server) Wait() string {
	<-s.exited
	_, line, _ := strings.Cut(s.last, ": ")
	return line
}

// Kill kills the server with SIGKILL and waits for its end.
func (s *Server) Kill() {
	s.Cmd.Process.Kill()
	<-s.exited
}

// lineWriter hands on the lines of what a program writes.
type lineWriter struct {
	prefix string
	line   func(string)
	rest   string // an unfinished line
}

func (w *lineWriter) Write(p []byte) (int, error) {
	lines := strings.Split(w.rest+string(p), "\n")
	w.rest = lines[len(lines)-1]
	for _, line := range lines[:len(lines)-1] {
		w.line(w.prefix + line)
	}
	return len(p), nil
}
