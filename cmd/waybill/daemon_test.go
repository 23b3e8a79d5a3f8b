//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/testenv"
)

const (
	loadAtOnce = 64
	loadGreets = "hello from the origin\n"
	reloads    = 500
	reloadRate = 50 // a second, at most: each waits for a grace period of the kernel's
)

// TestDaemonUnderLoad: the daemon is killed, started again, exchanged for
// another build, and has its policy changed 500 times, with 64 connections at
// once. None of them fails, and each passes both proxies.
func TestDaemonUnderLoad(t *testing.T) {
	h := newDaemonHost(t)
	v1, v2 := h.build("1.0"), h.build("2.0")
	h.serveOrigin()
	h.writePolicy(1)

	first := h.start(v1)
	load := h.startLoad()
	load.more(t, 200)
	first.kill(t)
	load.more(t, 200) // with nobody at the helm
	second := h.start(v1)
	load.more(t, 200)
	if s := h.status(); !s.Adopted || s.Version != "1.0" {
		t.Errorf("after kill -9: %+v", s)
	}
	second.terminate(t)
	third := h.start(v2)
	load.more(t, 200)
	if s := h.status(); !s.Adopted || s.Version != "2.0" {
		t.Errorf("after the upgrade: %+v", s)
	}
	took := h.reload()
	sum := load.end(t)
	s := h.status()
	third.terminate(t)

	t.Logf("%d connections; %d changes of policy in %.1f s; events lost: %d", sum.Connections, reloads, took.Seconds(), s.Counters["events_lost"])
	if len(sum.Failures) > 0 {
		t.Errorf("%d connections failed: %q", len(sum.Failures), sum.Failures[:min(5, len(sum.Failures))])
	}
	if c := s.Counters; c["redirected"] < 2*uint64(sum.Connections) || c["bypassed"]+c["lost"]+c["blocked"] > 0 {
		t.Errorf("counters: %v", c)
	}
}

// daemonHost is where a daemon of a test is at work.
type daemonHost struct {
	*testenv.Env
	t   *testing.T
	dir string
	log *os.File

	wrap []string // in front of the daemon's command line
}

func newDaemonHost(t *testing.T) *daemonHost {
	t.Helper()
	h := &daemonHost{Env: testenv.New(t), t: t, dir: t.TempDir()}
	var err error
	if h.log, err = os.OpenFile(filepath.Join(h.dir, "log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			raw, _ := os.ReadFile(h.log.Name())
			t.Logf("the daemons printed:\n%.10000s", raw)
		}
		h.log.Close()
	})
	return h
}

// build makes a waybill of its own version.
func (h *daemonHost) build(version string) string {
	h.t.Helper()
	path := filepath.Join(h.dir, "waybill-"+version)
	cmd := exec.Command("go", "build", "-ldflags", "-X main.release="+version, "-o", path, ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return path
}

func (h *daemonHost) socket() string { return filepath.Join(h.dir, "run", "waybill.sock") }

// flags say where the daemon is at work. State is reached through descriptor 3.
func (h *daemonHost) flags() []string {
	return []string{
		"--scope", h.Scope, "--state", "/proc/self/fd/3/waybill", "--run-dir", filepath.Join(h.dir, "run"),
		"--cgroup", filepath.Join(h.Scope, "waybill"),
	}
}

type daemonProcess struct{ cmd *exec.Cmd }

// start starts a daemon and waits until it says that it is ready.
func (h *daemonHost) start(binary string, flags ...string) *daemonProcess {
	h.t.Helper()
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(h.t.TempDir(), "notify")})
	if err != nil {
		h.t.Fatal(err)
	}
	defer notify.Close()
	args := append(h.flags(), "--policy", h.policyPath(), "--data-dir", filepath.Join(h.dir, "data"))
	line := slices.Concat(h.wrap, []string{binary, "daemon"}, args, flags)
	cmd := h.Command("daemon", line[0], line[1:]...)
	cmd.Stdout, cmd.Stderr = h.log, h.log
	cmd.ExtraFiles = []*os.File{h.StateFile()}
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify.LocalAddr().String())
	h.Inside(cmd.Start)
	h.t.Cleanup(func() { cmd.Process.Kill() })
	buf := make([]byte, 100)
	notify.SetReadDeadline(time.Now().Add(30 * time.Second))
	if n, err := notify.Read(buf); err != nil || string(buf[:n]) != "READY=1" {
		h.t.Fatalf("the daemon is not ready: %q, %v", buf[:n], err)
	}
	return &daemonProcess{cmd}
}

func (d *daemonProcess) kill(t *testing.T) {
	t.Helper()
	d.cmd.Process.Kill()
	d.cmd.Wait()
}

func (d *daemonProcess) terminate(t *testing.T) {
	t.Helper()
	d.cmd.Process.Signal(syscall.SIGTERM)
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
}

func (h *daemonHost) policyPath() string { return filepath.Join(h.dir, "policy.yaml") }

// policy is one of many that send connections through two proxies.
func (h *daemonHost) policy(i int) []byte {
	return fmt.Appendf(nil, `version: 1
providers:
  - {name: a, weight: %d, proxy: {listen: "127.0.0.1:7001"}, processes: {exec: [%[2]s, proxy, "127.0.0.1:7001"]}}
  - {name: b, weight: %[3]d, proxy: {listen: "127.0.0.1:7002"}, processes: {exec: [%[2]s, proxy, "127.0.0.1:7002"]}}
filters:
  - {name: to-a, provider: a, weight: %[1]d, match: {port: 8080, destination: "0.0.0.0/0"}}
  - {name: to-b, provider: b, match: {port: [8080, "%[4]d-9000"], destination: "0.0.0.0/0"}}
  - {name: never, provider: b, action: block, match: {port: 8080, program: /usr/bin/curl, user: root}}
`, 1+i%2, filepath.Join(h.dir, "waybill-1.0"), 1+(i+1)%2, 8001+i%50)
}

func (h *daemonHost) writePolicy(i int) {
	h.t.Helper()
	if err := os.WriteFile(h.policyPath(), h.policy(i), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

func (h *daemonHost) status() *control.Status {
	h.t.Helper()
	s, err := control.Client{Socket: h.socket()}.Status(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

// reload changes the policy again and again.
func (h *daemonHost) reload() time.Duration {
	h.t.Helper()
	client := control.Client{Socket: h.socket()}
	tick := time.NewTicker(time.Second / reloadRate)
	defer tick.Stop()
	start := time.Now()
	for i := range reloads {
		<-tick.C
		if _, err := client.ApplyPolicy(h.t.Context(), "test", h.policy(i)); err != nil {
			h.t.Fatal(err)
		}
	}
	return time.Since(start)
}

// serveOrigin greets whoever connects to port 8080.
func (h *daemonHost) serveOrigin() {
	l := h.Listen(net.JoinHostPort(testenv.Outside4.String(), "8080"))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				bufio.NewReader(c).ReadString('\n')
				io.WriteString(c, loadGreets)
			}()
		}
	}()
}

type loadSummary struct {
	Connections int64
	Failures    []string
}

// load is a client that connects all the time.
type load struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
}

func (h *daemonHost) startLoad() *load {
	h.t.Helper()
	self, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	path := filepath.Join(h.dir, "waybill-load")
	if err := os.Symlink(self, path); err != nil {
		h.t.Fatal(err)
	}
	l := &load{cmd: h.Command("app", path, net.JoinHostPort(testenv.Outside4.String(), "8080"))}
	if l.stdin, err = l.cmd.StdinPipe(); err != nil {
		h.t.Fatal(err)
	}
	stdout, err := l.cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	l.out = bufio.NewReader(stdout)
	h.Inside(l.cmd.Start)
	h.t.Cleanup(func() { l.cmd.Process.Kill() })
	return l
}

// more waits until n more connections have been made.
func (l *load) more(t *testing.T, n int) {
	t.Helper()
	fmt.Fprintln(l.stdin, n)
	if _, err := l.out.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
}

func (l *load) end(t *testing.T) loadSummary {
	t.Helper()
	l.stdin.Close()
	var sum loadSummary
	if err := json.NewDecoder(l.out).Decode(&sum); err != nil {
		t.Fatal(err)
	}
	l.cmd.Wait()
	return sum
}

// runLoad is the client: it answers each number on its input when as many
// connections more have been made, and tells how it went at the end of input.
func runLoad(ctx context.Context, address string) {
	ctx, cancel := context.WithCancel(ctx)
	var (
		made     atomic.Int64
		mu       sync.Mutex
		failures []string
		workers  sync.WaitGroup
	)
	for range loadAtOnce {
		workers.Go(func() {
			for ctx.Err() == nil {
				if err := greet(address); err != nil {
					mu.Lock()
					failures = append(failures, err.Error())
					mu.Unlock()
				}
				made.Add(1)
			}
		})
	}
	var n int64
	for in := bufio.NewReader(os.Stdin); ; {
		if _, err := fmt.Fscanln(in, &n); err != nil {
			break
		}
		for want := made.Load() + n; made.Load() < want; {
			time.Sleep(time.Millisecond)
		}
		fmt.Println("done")
	}
	cancel()
	workers.Wait()
	json.NewEncoder(os.Stdout).Encode(loadSummary{made.Load(), failures})
}

func greet(address string) error {
	c, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, "hello\n")
	answer, err := io.ReadAll(c)
	if err == nil && string(answer) != loadGreets {
		err = fmt.Errorf("answer %q", answer)
	}
	return err
}
