//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
)

const namesPolicy = `version: 1
providers:
  - {name: resolver, weight: 2, proxy: {udp: "127.0.0.1:7001", listen: "127.0.0.1:7001"}, processes: {exec: [WAYBILL, proxy, "udp:127.0.0.1:7001", "127.0.0.1:7001"]}}
  - {name: web, weight: 1, proxy: {listen: "127.0.0.1:7002"}, processes: {exec: [WAYBILL, proxy, "127.0.0.1:7002"]}}
filters:
  - {name: dns, provider: resolver, match: {protocol: [udp, tcp], port: 53, destination: "0.0.0.0/0"}}
  - {name: named, provider: web, match: {domain: www.example.test, port: 8080, destination: "0.0.0.0/0"}}
`

// TestNamesThroughDaemon: what a program was told by a resolver, the daemon
// knows before it; filters and flows have the name, also after the daemon was
// killed.
func TestNamesThroughDaemon(t *testing.T) {
	h := newDaemonHost(t)
	waybill := h.build("1.0")
	h.serveOrigin()
	h.serveResolver("192.0.2.2:53", "www.example.test.", "192.0.2.1")
	if err := os.WriteFile(h.policyPath(), []byte(strings.ReplaceAll(namesPolicy, "WAYBILL", waybill)), 0o600); err != nil {
		t.Fatal(err)
	}
	d := h.start(waybill)
	ask := func() {
		t.Helper()
		if got := strings.TrimSpace(h.Run("app", "curl", "-sS", "--http0.9", "--max-time", "10", "http://192.0.2.1:8080/")); got != strings.TrimSpace(loadGreets) {
			t.Errorf("got %q", got)
		}
	}
	ask()
	if c := h.status().Counters["redirected"]; c != 0 {
		t.Errorf("%d redirected before anybody knew a name", c)
	}
	if got := strings.TrimSpace(h.Run("app", "dig", "+short", "@192.0.2.2", "www.example.test")); got != "192.0.2.1" {
		t.Fatalf("the resolver says %q", got)
	}
	ask()
	checkName := func(n int) {
		t.Helper()
		for _, f := range h.waitFlows(n) {
			want := ""
			if f.Dst.Port() == 8080 {
				want = "www.example.test"
			}
			if f.Name != want || f.Hops[len(f.Hops)-1].Name != want {
				t.Errorf("flow to %s: name %q, want %q", f.Dst, f.Name, want)
			}
		}
	}
	checkName(2)
	e := h.Run("app", waybill, "policy", "explain", "--socket", h.socket(), "192.0.2.1:8080")
	if !strings.Contains(e, "after 1 proxy: web") {
		t.Errorf("explained: %s", e)
	}

	h.waitFile("names.json", "www.example.test")
	d.kill(t)
	d = h.start(waybill)
	ask()
	checkName(3)
	h.Run("app", "dig", "+tcp", "+short", "@192.0.2.2", "www.example.test")
	if raw, _ := os.ReadFile(h.log.Name()); strings.Contains(string(raw), "not told") {
		t.Errorf("the proxies could not tell: %s", raw)
	}
	d.terminate(t)
}

// serveResolver answers every question about a name with one address.
func (h *daemonHost) serveResolver(at, name, address string) {
	h.t.Helper()
	record, err := miekg.NewRR(fmt.Sprintf("%s 300 IN A %s", name, address))
	if err != nil {
		h.t.Fatal(err)
	}
	answer := miekg.HandlerFunc(func(w miekg.ResponseWriter, q *miekg.Msg) {
		m := new(miekg.Msg).SetReply(q)
		if q.Question[0].Name == name && q.Question[0].Qtype == miekg.TypeA {
			m.Answer = []miekg.RR{record}
		}
		w.WriteMsg(m)
	})
	for _, s := range []*miekg.Server{{PacketConn: h.ListenPacket(at), Handler: answer}, {Listener: h.Listen(at), Handler: answer}} {
		go s.ActivateAndServe()
	}
}

// waitFile waits until a file of the run directory has a text in it.
func (h *daemonHost) waitFile(name, text string) {
	h.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		raw, err := os.ReadFile(filepath.Join(h.dir, "run", name))
		if err == nil && strings.Contains(string(raw), text) {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("%s: %q, %v; want %s", name, raw, err, text)
		}
	}
}
