//go:build linux

package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// changing is every request that changes something, and such that could.
var changing = [][]string{
	{"-X", "PUT", "-d", "version: 1", "/v1/policy"},
	{"-X", "POST", "-d", "version: 1", "/v1/policy"},
	{"-X", "DELETE", "/v1/policy"},
	{"-X", "PATCH", "-d", "version: 1", "/v1/policy"},
	{"-d", `{"via": ["secret"]}`, "/v1/run"},
	{"-d", `{"via": ["dlp", "secret"]}`, "/v1/run"},
	{"-d", `{"query": "DELETE FROM flows"}`, "/v1/sql"},
	{"-d", `{"dst": "192.0.2.1:443"}`, "/v1/policy/explain"},
	{"-X", "DELETE", "/v1/flows/1"},
}

// TestDaemonTakesNoOrders: who is not root changes nothing, whether he is a
// member of the group or could only connect because somebody opened the
// socket to all. The daemon has the capabilities of the unit.
func TestDaemonTakesNoOrders(t *testing.T) {
	h := newDaemonHost(t)
	h.open(h.dir)
	waybill := h.build("1.0")
	if err := os.WriteFile(h.policyPath(), []byte(strings.ReplaceAll(openPolicy, "WAYBILL", waybill)), 0o644); err != nil {
		t.Fatal(err)
	}
	h.wrap = []string{"setpriv", "--no-new-privs", "--bounding-set=" + unitCapabilities(t)}
	d := h.start(waybill, "--group", "nogroup")
	before := h.status()
	const stranger = 60000 // a group that is not the daemon's
	if out, err := h.as(stranger, "curl", "-s", "--unix-socket", h.socket(), "http://waybill/v1/version"); err == nil {
		t.Errorf("a stranger reached the socket: %s", out)
	}
	if err := os.Chmod(h.socket(), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, gid := range []uint32{nobody, stranger} {
		for _, request := range changing {
			args := []string{"curl", "-s", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", h.socket()}
			args = append(args, request[:len(request)-1]...)
			if out, err := h.as(gid, append(args, "http://waybill"+request[len(request)-1])...); err != nil || out != "403" {
				t.Errorf("%v by one of group %d: %q, %v", request, gid, out, err)
			}
		}
		h.checkCommands(waybill, gid, gid == nobody)
	}
	h.sendGarbage(400)
	after := h.status()
	if after.PID != d.cmd.Process.Pid || after.Policy.Generation != before.Policy.Generation || after.Runs != 0 ||
		len(after.Providers) != len(before.Providers) {
		t.Errorf("before %+v\nafter  %+v", before, after)
	}
	d.terminate(t)
}

// checkCommands: one who is not root may list his flows if he is a member, and
// is told who may see the status.
func (h *daemonHost) checkCommands(waybill string, gid uint32, member bool) {
	h.t.Helper()
	out, err := h.as(gid, waybill, "status", "--socket", h.socket())
	if err == nil || !strings.Contains(out, "you may not do that") || !strings.Contains(out, "run it as root") {
		h.t.Errorf("status by one of group %d: %q, %v", gid, out, err)
	}
	out, err = h.as(gid, waybill, "flows", "--socket", h.socket())
	if (err == nil) != member {
		h.t.Errorf("flows by one of group %d: %q, %v", gid, out, err)
	}
}

// sendGarbage sends bytes that are no request, and beginnings of some that
// could be, as root. All of it ends.
func (h *daemonHost) sendGarbage(n int) {
	h.t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	begins := []string{"", "GET ", "PUT /v1/policy HTTP/1.1\r\nHost: w\r\nContent-Length: 99\r\n\r\n", "POST /v1/run HTTP/1.1\r\nHost: w\r\n", "\x16\x03\x01"}
	for i := range n {
		c, err := net.DialTimeout("unix", h.socket(), 10*time.Second)
		if err != nil {
			h.t.Fatal(err)
		}
		garbage := make([]byte, rng.IntN(2000))
		for j := range garbage {
			garbage[j] = byte(rng.Uint32())
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(c, begins[i%len(begins)])
		c.Write(garbage)
		c.(*net.UnixConn).CloseWrite()
		if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(fmt.Sprint(err), "timeout") {
			h.t.Fatalf("no end of %q", garbage)
		}
		c.Close()
	}
}
