//go:build linux

package control_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/control/controltest"
)

// counting is a daemon whose kernel programs count other things.
type counting struct {
	*controltest.Backend
	counters map[string]uint64
	err      error
}

func (c *counting) Status(ctx context.Context) (*control.Status, error) {
	s, _ := c.Backend.Status(ctx)
	s.Counters = c.counters
	return s, c.err
}

// TestMetricsOnLoopback: the port has the metrics and nothing else.
func TestMetricsOnLoopback(t *testing.T) {
	address := serveMetrics(t, controltest.New(t))
	status, text := fetch(t, "http://"+address+"/metrics")
	if status != 200 || !strings.Contains(text, `waybill_build_info{go="go1.`) || !strings.Contains(text, `version="v0.3.0"} 1`) {
		t.Errorf("got %d %s", status, text)
	}
	for _, path := range []string{"/v1/status", "/v1/version", "/v1/flows", "/"} {
		if status, text := fetch(t, "http://"+address+path); status != 404 {
			t.Errorf("%s: got %d %s", path, status, text)
		}
	}
	if answer, err := http.Post("http://"+address+"/metrics", "", nil); err != nil || answer.StatusCode != 405 {
		t.Errorf("POST: got %v, %v", answer, err)
	}
}

func TestMetricsAddresses(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", "[::]:0", ":0", "192.0.2.1:0", "localhost:0", "127.0.0.1"} {
		l, err := control.ListenMetrics(address)
		if err == nil {
			l.Close()
			t.Errorf("it listens on %s", address)
		}
	}
}

// TestEveryCounter: each counter of the kernel programs has its place among
// the metrics, not only the last resort.
func TestEveryCounter(t *testing.T) {
	abi, err := os.ReadFile("../../bpf/abi.h")
	if err != nil {
		t.Fatal(err)
	}
	_, enum, _ := strings.Cut(string(abi), "enum wb_counter {")
	enum, _, _ = strings.Cut(enum, "}")
	counters := make(map[string]uint64)
	for _, m := range regexp.MustCompile(`(?m)^\s*WB_([A-Z_]+),`).FindAllStringSubmatch(enum, -1) {
		counters[strings.ToLower(m[1])] = 1
	}
	delete(counters, "counters") // their number
	if len(counters) < 20 {
		t.Fatalf("%d counters in bpf/abi.h", len(counters))
	}
	c := &counting{controltest.New(t), counters, nil}
	_, text := fetch(t, "http://"+serveMetrics(t, c)+"/metrics")
	if strings.Contains(text, "waybill_other_total") {
		t.Error(text)
	}
	if n := len(regexp.MustCompile(`(?m)^waybill_(connections|skipped|down|records|socket_options|events_lost)_total`).FindAllString(text, -1)); n != len(counters) {
		t.Errorf("%d counters in metrics, %d in bpf/abi.h", n, len(counters))
	}

	c.counters = map[string]uint64{"unheard_of": 5}
	if _, text = fetch(t, "http://"+serveMetrics(t, c)+"/metrics"); !strings.Contains(text, `waybill_other_total{counter="unheard_of"} 5`) {
		t.Error(text)
	}
	c.err = errors.New("read counter passed: gone")
	if status, text := fetch(t, "http://"+serveMetrics(t, c)+"/metrics"); status != 500 || !strings.Contains(text, "read counter passed: gone") {
		t.Errorf("got %d %s", status, text)
	}
}

func serveMetrics(t *testing.T, b control.Backend) (address string) {
	t.Helper()
	l, err := control.ListenMetrics("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- (&control.Server{Backend: b}).ServeMetrics(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := controltest.Within(t, ended, "end of the server"); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func fetch(t *testing.T, target string) (int, string) {
	t.Helper()
	answer, err := http.Get(target)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}
