//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/cgroup"
	"github.com/waybill-net/waybill/internal/daemon"
)

// TestOffAfterKill: the daemon and all its proxies are killed with -9, and
// "off" takes away what is left of them: programs, links, pins, cgroups.
func TestOffAfterKill(t *testing.T) {
	h := newDaemonHost(t)
	waybill := h.build("1.0")
	h.writePolicy(1)
	d := h.start(waybill)
	d.kill(t)
	proxies, err := cgroup.Processes(filepath.Join(h.Scope, "waybill"))
	if err != nil || len(proxies) == 0 {
		t.Fatalf("proxies: %v, %v", proxies, err)
	}
	for _, pid := range proxies {
		p, _ := os.FindProcess(pid)
		p.Kill()
	}
	programs := bpftoolPrograms(t, h.Scope)
	if len(programs) != 16 {
		t.Errorf("after kill -9 of everything the programs are %v", programs)
	}

	var done daemon.Removed
	if err := json.Unmarshal([]byte(h.off(waybill, "--json")), &done); err != nil || done.State == "" {
		t.Errorf("off: %+v, %v", done, err)
	}
	if got := bpftoolPrograms(t, h.Scope); len(got) != 0 {
		t.Errorf("still attached: %v", got)
	}
	for _, id := range programs {
		checkFreed(t, id)
	}
	pins, err := os.ReadDir(fmt.Sprintf("/proc/self/fd/%d", h.StateFile().Fd()))
	if err != nil {
		t.Fatal(err)
	}
	for _, pin := range pins {
		if strings.HasPrefix(pin.Name(), "waybill") {
			t.Errorf("still pinned: %s", pin.Name())
		}
	}
	for _, path := range []string{filepath.Join(h.Scope, "waybill"), filepath.Join(h.dir, "run")} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
	if out := h.off(waybill); out != "removed nothing: there was nothing of waybill's\n" {
		t.Errorf("off once more: %q", out)
	}
}

// off runs "waybill off" and returns what it printed.
func (h *daemonHost) off(waybill string, args ...string) string {
	h.t.Helper()
	cmd := exec.Command(waybill, append(append([]string{"off"}, h.flags()...), args...)...)
	cmd.ExtraFiles = []*os.File{h.StateFile()}
	cmd.Stderr = h.log
	out, err := cmd.Output()
	if err != nil {
		h.t.Fatalf("off: %v\n%s", err, out)
	}
	return string(out)
}

// bpftoolPrograms lists the programs that another tool sees attached to a
// cgroup, by their ids.
func bpftoolPrograms(t *testing.T, dir string) []int {
	t.Helper()
	out, err := exec.Command("bpftool", "--json", "cgroup", "show", dir).Output()
	if err != nil {
		t.Fatalf("bpftool: %v", err)
	}
	var attached []struct{ ID int }
	if out = bytes.TrimSpace(out); len(out) > 0 {
		if err := json.Unmarshal(out, &attached); err != nil {
			t.Fatalf("bpftool printed %q: %v", out, err)
		}
	}
	var ids []int
	for _, a := range attached {
		ids = append(ids, a.ID)
	}
	return ids
}

// checkFreed waits until the kernel has freed a program: it does so a grace
// period after its last user is gone.
func checkFreed(t *testing.T, id int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if exec.Command("bpftool", "prog", "show", "id", strconv.Itoa(id)).Run() != nil {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("program %d is still loaded", id)
			return
		}
	}
}
