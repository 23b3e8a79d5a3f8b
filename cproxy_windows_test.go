package waybill_test

import (
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/standin"
)

// TestCProxy: examples/c/proxy.c, the source that also stands in chains on
// Linux (TestHopLimit), twice in front of this process.
func TestCProxy(t *testing.T) {
	standin.Redirect(t, standin.Policy{}, 7001, 7002)
	startC(t, "127.0.0.1", "7001")
	startC(t, "127.0.0.1", "7002")
	if heard := standin.Application(origin4)(); heard != "pong" {
		t.Errorf("application heard %q", heard)
	}
	if n := standin.Redirects(t); n != 2 {
		t.Errorf("%d redirects, want 2", n)
	}

	standin.Redirect(t, standin.Policy{Plain: 1}, 7002) // the destination by SO_ORIGINAL_DST
	if heard := standin.Application(origin4)(); heard != "pong" {
		t.Errorf("application heard %q", heard)
	}
}

// startC runs the program that .ci/wine has built until the test ends.
func startC(t *testing.T, host, port string) {
	t.Helper()
	program := os.Getenv("WAYBILL_C_PROXY")
	if program == "" {
		t.Fatal("WAYBILL_C_PROXY does not name the C proxy: run .ci/wine")
	}
	cmd := exec.Command(program, host, port)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for range 500 {
		if c, err := net.Dial("tcp", net.JoinHostPort(host, port)); err == nil {
			c.Close()
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("nothing listens on %s", port)
}
