// Package testenv gives each test on the real kernel a cgroup of its own and
// starts programs inside it. Nothing of it outlives the test, not even if the
// test is killed.
package testenv

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/cgroup"
)

// Env is the surroundings of one test.
type Env struct {
	t     testing.TB
	Scope string // the cgroup to attach to
}

var serial atomic.Int32

// New makes a scope. The test must run as root: without it the kernel side
// can not be tested, and a skip would hide that.
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
	return &Env{t: t, Scope: temp.Dir}
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
	cmd.Stderr = &logWriter{t: e.t, prefix: cgroupName + ": "}
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
	if err := cmd.Start(); err != nil {
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
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		e.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	s := &Server{Cmd: cmd, exited: make(chan struct{})}
	lines := bufio.NewReader(stdout)
	first, err := lines.ReadString('\n')
	go s.wait(lines, cmd.Stderr)
	e.t.Cleanup(s.Kill)
	if strings.TrimSpace(first) != "ready" {
		e.t.Fatalf("%s: first line is %q (%v), want \"ready\"", cmd, first, err)
	}
	return s
}

func (s *Server) wait(stdout io.Reader, log io.Writer) {
	defer close(s.exited)
	io.Copy(log, stdout)
	s.Cmd.Wait()
}

// Kill kills the server with SIGKILL and waits for its end.
func (s *Server) Kill() {
	s.Cmd.Process.Kill()
	<-s.exited
}

// FreePort returns an address whose port nobody listened on a moment ago.
func FreePort(t testing.TB, ip string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// logWriter passes what a program writes on to the test's log.
type logWriter struct {
	t      testing.TB
	prefix string
}

func (w *logWriter) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		w.t.Log(w.prefix + strings.TrimSuffix(line, "\n"))
	}
	return len(p), nil
}
