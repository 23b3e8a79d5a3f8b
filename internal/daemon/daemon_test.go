//go:build linux

package daemon_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/waybill-net/waybill/internal/cgroup"
	"github.com/waybill-net/waybill/internal/daemon"
	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/testenv"
)

// host is the surroundings of a daemon: all that it touches is the test's.
type host struct {
	*testenv.Env
	t    *testing.T
	opts daemon.Options
}

func newHost(t *testing.T) *host {
	t.Helper()
	env := testenv.New(t)
	dir := t.TempDir()
	h := &host{Env: env, t: t, opts: daemon.Options{
		Policy:  filepath.Join(dir, "policy.yaml"),
		Scope:   env.Scope,
		State:   env.StateDir(),
		RunDir:  filepath.Join(dir, "run"),
		DataDir: filepath.Join(dir, "data"),
		Cgroup:  filepath.Join(env.Scope, "waybill"),
		Version: "test",
		Log:     slog.New(slog.NewTextHandler(t.Output(), nil)),
	}}
	t.Cleanup(func() {
		if _, err := daemon.Off(h.opts); err != nil {
			t.Error(err)
		}
	})
	return h
}

func (h *host) writePolicy(text string) {
	h.t.Helper()
	if err := os.WriteFile(h.opts.Policy, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// open opens a daemon in the network namespace of the test, where its proxies
// listen.
func (h *host) open() *daemon.Daemon {
	h.t.Helper()
	var d *daemon.Daemon
	h.Inside(func() (err error) {
		d, err = daemon.Open(h.opts)
		return err
	})
	return d
}

func (h *host) close(d *daemon.Daemon) {
	h.t.Helper()
	if err := d.Close(); err != nil {
		h.t.Error(err)
	}
}

// listener starts a proxy that listens and accepts nothing, as another user.
const listener = `
version: 1
providers:
  - name: dlp
    weight: 1
    proxy: {listen: "127.0.0.1:7001"}
    processes:
      user: nobody
      exec: [/usr/bin/python3, -c, "import socket, time; s = socket.create_server(('127.0.0.1', 7001)); time.sleep(1000)"]
`

func processes(t *testing.T, dir string) []int {
	t.Helper()
	pids, err := cgroup.Processes(dir)
	if err != nil {
		t.Fatal(err)
	}
	return pids
}

// TestProxiesOutliveTheDaemon: the next daemon adopts those that it wants as
// they are, and stops those that it does not.
func TestProxiesOutliveTheDaemon(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.writePolicy(listener)
	h.close(h.open())
	dlp := filepath.Join(h.opts.Cgroup, "proxies", "dlp")
	first := processes(t, dlp)
	if len(first) != 1 {
		t.Fatalf("processes of the proxy: %v", first)
	}
	if raw, err := os.ReadFile("/proc/" + strconv.Itoa(first[0]) + "/status"); err != nil || !strings.Contains(string(raw), "Uid:\t65534") {
		t.Errorf("the proxy does not run as nobody: %v", err)
	}

	d := h.open()
	if got := processes(t, dlp); len(got) != 1 || got[0] != first[0] {
		t.Errorf("processes %v, want %v to be adopted", got, first)
	}
	changed := strings.Replace(listener, "1000", "1001", 1)
	if _, err := d.ApplyPolicy("changed", []byte(changed)); err != nil {
		t.Fatal(err)
	}
	if got := processes(t, dlp); len(got) != 1 || got[0] == first[0] {
		t.Errorf("processes %v, want another than %v", got, first)
	}
	if _, err := d.ApplyPolicy("empty", []byte("version: 1\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dlp); err == nil {
		t.Error("the cgroup of a proxy that nobody wants is still there")
	}
	h.close(d)
}

// TestNames: programs see the addresses that they would have without proxies,
// before and after the daemon's end.
func TestNames(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	root, err := cgroup.Root()
	if err != nil {
		t.Fatal(err)
	}
	h.writePolicy(fmt.Sprintf(`
version: 1
providers:
  - name: dlp
    proxy: {listen: "127.0.0.1:7001"}
    processes: {cgroup: %s}
filters: [{name: all, provider: dlp}]
`, strings.TrimPrefix(h.Env.Cgroup("dlp"), root)))
	h.Start("dlp", "python3", "-c", `
import socket
s = socket.create_server(("127.0.0.1", 7001))
print("ready", flush=True)
while True:
    s.accept()
`)
	look := func() {
		t.Helper()
		got := h.Run("app", "python3", "-c", `
import socket
s = socket.create_connection(("192.0.2.2", 80)) # where nobody listens
print(*s.getpeername(), s.getsockname()[0])
`)
		if want := "192.0.2.2 80 192.0.2.2\n"; got != want {
			t.Errorf("a client sees %q, want %q", got, want)
		}
	}
	for range 2 {
		d := h.open()
		look()
		h.close(d)
		look()
	}
}

// TestBadPolicy leaves the old one in force, at a reload and at a start.
func TestBadPolicy(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.writePolicy("version: 2\n")
	if d, err := daemon.Open(h.opts); err == nil {
		h.close(d)
		t.Fatal("began with a policy that is not valid")
	}
	h.writePolicy(listener)
	d := h.open()
	dlp := filepath.Join(h.opts.Cgroup, "proxies", "dlp")
	pids := processes(t, dlp)
	h.writePolicy(strings.Replace(listener, "/usr/bin/python3", "/no-such-program", 1))
	if err := d.ReloadPolicy(); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("error %v, want one about no-such-program", err)
	}
	h.close(d)
	d = h.open() // with what was in force, not with the file
	if got := processes(t, dlp); len(got) != 1 || got[0] != pids[0] {
		t.Errorf("processes %v, want %v", got, pids)
	}
	h.close(d)
}

// TestOff takes everything away, also while the proxies run.
func TestOff(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.writePolicy(listener)
	d := h.open()
	var running *daemon.RunningError
	if _, err := daemon.Off(h.opts); !errors.As(err, &running) || running.PID != os.Getpid() {
		t.Errorf("off while a daemon runs: %v", err)
	}
	h.close(d)
	done, err := daemon.Off(h.opts)
	if err != nil {
		t.Fatal(err)
	}
	if done.State != h.opts.State || done.Proxies != 1 {
		t.Errorf("took away %+v", done)
	}
	for _, path := range []string{h.opts.State, h.opts.Cgroup, h.opts.RunDir} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
	if _, err := engine.InspectState(h.opts.State); err == nil {
		t.Error("state is still there")
	}
	if done, err := daemon.Off(h.opts); err != nil || *done != (daemon.Removed{}) {
		t.Errorf("once more: %+v, %v", done, err)
	}
}
