//go:build linux

package daemon_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/dns"
)

// teller is a proxy that tells the same name again and again, as another user.
const teller = `
version: 1
providers:
  - name: dlp
    weight: 2
    proxy: {listen: "127.0.0.1:7001"}
    processes:
      user: nobody
      exec:
        - /usr/bin/python3
        - -c
        - |
          import http.client, json, os, socket, time
          s = socket.create_server(("127.0.0.1", 7001))
          while True:
              c = http.client.HTTPConnection("waybill")
              c.sock = socket.socket(socket.AF_UNIX)
              try:
                  c.sock.connect(os.environ["WAYBILL_NAMES"])
                  c.request("POST", "/v1/names", json.dumps({"name": "a.example", "addresses": [{"address": "192.0.2.1", "seconds": 60}]}))
                  c.getresponse().read()
              except OSError:
                  pass
              c.close()
              time.sleep(0.02)
`

// deaf is a proxy that never listens, for which a daemon waits.
const deaf = `
  - name: deaf
    weight: 1
    proxy: {listen: "127.0.0.1:7002"}
    processes: {exec: [/bin/sleep, "1000"]}
`

// TestNamesMeanwhile: a proxy may tell names also while the policy changes, and
// is not kept waiting for that. Programs wait for their answers.
func TestNamesMeanwhile(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	dir := filepath.Dir(h.opts.RunDir)
	for _, d := range []string{filepath.Dir(dir), dir} { // nobody is to come to the socket
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h.writePolicy(teller)
	d := h.open()
	defer h.close(d)
	learnt := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	server := d.NamesServer()
	server.Learn = func(dns.Resolved) error {
		select {
		case learnt <- struct{}{}:
		case <-ctx.Done():
		}
		return nil
	}
	l, err := server.Listen(filepath.Join(h.opts.RunDir, "names.sock"))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, l) }()
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	hear := func() {
		t.Helper()
		select {
		case <-learnt:
		case <-time.After(10 * time.Second):
			t.Fatal("nothing is told")
		}
	}
	hear()

	applied := make(chan error, 1)
	h.Inside(func() error {
		go func() {
			_, err := d.ApplyPolicy("with another", []byte(teller+deaf))
			applied <- err
		}()
		return nil
	})
	for len(applied) == 0 {
		if _, err := os.Stat(filepath.Join(h.opts.Cgroup, "proxies", "deaf")); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	hear() // one that had begun before
	hear()
	if len(applied) > 0 {
		t.Error("it was heard only when the policy had changed")
	}
	if err := <-applied; err != nil {
		t.Error(err)
	}
}
