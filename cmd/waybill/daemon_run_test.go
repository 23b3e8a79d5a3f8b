//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/flow"
	"github.com/waybill-net/waybill/internal/flowstore"
)

const nobody = 65534 // the user, and the number of its group

const openPolicy = `version: 1
providers:
  - name: dlp
    weight: 2
    proxy: {listen: "127.0.0.1:7001", listen6: "[::1]:7001"}
    processes: {exec: [WAYBILL, proxy, "127.0.0.1:7001", "[::1]:7001"], user: nobody}
    open-to: [nogroup]
  - name: secret
    weight: 1
    proxy: {listen: "127.0.0.1:7002"}
    processes: {exec: [WAYBILL, proxy, "127.0.0.1:7002"], user: nobody}
`

// TestRunThroughDaemon: who is not root sends a program through a provider
// that is open to one of his groups, and may do nothing else.
func TestRunThroughDaemon(t *testing.T) {
	h := newDaemonHost(t)
	h.open(h.dir)
	waybill := h.build("1.0")
	h.serveOrigin()
	policy := strings.ReplaceAll(openPolicy, "WAYBILL", waybill)
	if err := os.WriteFile(h.policyPath(), []byte(policy), 0o644); err != nil {
		t.Fatal(err)
	}
	// With the capabilities of the unit, and by a daemon that has adopted the state of another.
	h.wrap = []string{"setpriv", "--no-new-privs", "--bounding-set=" + unitCapabilities(t)}
	h.start(waybill, "--group", "nogroup").terminate(t)
	d := h.start(waybill, "--group", "nogroup")
	if s := h.status(); !s.Adopted {
		t.Errorf("not adopted: %+v", s)
	}

	const url = "http://192.0.2.1:8080/"
	ask := []string{"curl", "-sS", "--http0.9", "--max-time", "10", url}
	if out, err := h.asNobody(ask...); err != nil || out != loadGreets {
		t.Fatalf("without waybill: %q, %v", out, err)
	}
	run := func(via string) (string, error) {
		return h.asNobody(append([]string{waybill, "run", "--socket", h.socket(), "--via", via, "--"}, ask...)...)
	}
	if out, err := run("dlp"); err != nil || out != loadGreets {
		t.Errorf("through dlp: %q, %v", out, err)
	}
	if out, err := run("secret"); err == nil || !strings.Contains(out, `provider "secret" is not open to you`) {
		t.Errorf("through secret: %q, %v", out, err)
	}

	flows := h.waitFlows(1)
	if f := flows[0]; !strings.HasSuffix(f.Details.Executable, "curl") || f.Details.User != "nobody" || !strings.HasSuffix(f.Details.Cgroup, "/runs/"+strings.TrimPrefix(f.Hops[0].Filter, "run-")) {
		t.Errorf("what is known of the process: %+v", f.Details)
	}
	if f := flows[0]; f.Process.UID != nobody || len(f.Hops) != 2 || f.Hops[0].Provider != "dlp" || !strings.HasPrefix(f.Hops[0].Filter, "run-") {
		t.Errorf("flow: %+v", f)
	}
	if s := h.status(); s.Runs != 0 {
		t.Errorf("%d runs are left", s.Runs)
	}
	h.checkForbidden()

	// A hang-up reads the policy file again.
	before := h.status().Policy.Generation
	if err := os.WriteFile(h.policyPath(), []byte("version: 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d.cmd.Process.Signal(syscall.SIGHUP)
	for deadline := time.Now().Add(10 * time.Second); h.status().Policy.Generation == before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the policy file was not read again")
		}
	}
	if s := h.status(); len(s.Providers) != 0 {
		t.Errorf("providers: %+v", s.Providers)
	}
}

// unitCapabilities reads what the unit leaves the daemon, as setpriv takes it.
func unitCapabilities(t *testing.T) string {
	t.Helper()
	unit, err := os.ReadFile("../../packaging/waybill.service")
	if err != nil {
		t.Fatal(err)
	}
	_, list, found := strings.Cut(string(unit), "CapabilityBoundingSet=")
	list, _, _ = strings.Cut(list, "\n")
	if !found {
		t.Fatal("the unit bounds no capabilities")
	}
	set := "-all"
	for _, name := range strings.Fields(list) {
		set += ",+" + strings.ToLower(strings.TrimPrefix(name, "CAP_"))
	}
	return set
}

// open lets other users reach a directory of the test.
func (h *daemonHost) open(dir string) {
	h.t.Helper()
	for ; dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			h.t.Fatal(err)
		}
	}
}

// asNobody runs a program and returns what it printed on either output.
func (h *daemonHost) asNobody(args ...string) (string, error) {
	h.t.Helper()
	return h.as(nobody, args...)
}

// as is that of the user nobody in another group.
func (h *daemonHost) as(gid uint32, args ...string) (string, error) {
	h.t.Helper()
	cmd := h.Command("app", args[0], args[1:]...)
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: gid}
	cmd.Dir = "/"
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	h.Inside(cmd.Start)
	timer := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Wait()
	return out.String(), err
}

// waitFlows waits until n flows are done and written down.
func (h *daemonHost) waitFlows(n int) []flow.Flow {
	h.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		flows, err := control.Client{Socket: h.socket()}.Flows(h.t.Context(), flowstore.Query{})
		if err != nil {
			h.t.Fatal(err)
		}
		done := 0
		for _, f := range flows {
			if f.Outcome == flow.Done {
				done++
			}
		}
		if done == n && len(flows) == n {
			return flows
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("flows: %+v, want %d that are done", flows, n)
		}
	}
}

// checkForbidden asks the daemon for what is root's.
func (h *daemonHost) checkForbidden() {
	h.t.Helper()
	for _, path := range []string{"/v1/status", "/v1/providers", "/v1/policy", "/metrics"} {
		out, err := h.asNobody("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", h.socket(), "http://waybill"+path)
		if err != nil || out != "403" {
			h.t.Errorf("%s answers %q, %v", path, out, err)
		}
	}
}
