package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/standin"
)

// commandVar makes the test binary the command.
const commandVar = "WAYBILL_TEST_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(commandVar) != "" {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	if err := standin.ServeOrigin(); err != nil {
		fmt.Fprintln(os.Stderr, "serve the origin:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// command is waybill with arguments. What it prints goes to a file: a pipe
// would be held open by Wine.
func command(t *testing.T, args ...string) (cmd *exec.Cmd, output func() string) {
	t.Helper()
	cmd = exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), commandVar+"=1")
	f, err := os.CreateTemp("", "waybill-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close(); os.Remove(f.Name()) })
	cmd.Stdout, cmd.Stderr = f, f
	return cmd, func() string {
		b, err := os.ReadFile(f.Name())
		if err != nil {
			t.Error(err)
		}
		return string(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")))
	}
}

// start runs it until the test ends.
func start(t *testing.T, address string, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for range 500 {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("nothing listens on %s", address)
}

// TestProxies: two processes of waybill proxy in front of this one, which is
// the application and the origin.
func TestProxies(t *testing.T) {
	standin.Redirect(t, standin.Policy{}, 7001, 7002)
	first, said := command(t, "proxy", "127.0.0.1:7001")
	start(t, "127.0.0.1:7001", first)
	second, alsoSaid := command(t, "proxy", "127.0.0.1:7002", "--quiet")
	start(t, "127.0.0.1:7002", second)
	if heard := standin.Application("192.0.2.1:8080")(); heard != "pong" {
		t.Errorf("application heard %q", heard)
	}
	if n := standin.Redirects(t); n != 2 {
		t.Errorf("%d redirects, want 2", n)
	}
	// There is a line about the connection by which start has found it, too.
	if got, want := said(), "\n-> 192.0.2.1:8080: 4 bytes, \"ping\"\n"; !strings.HasSuffix(got, want) {
		t.Errorf("the first said %q, want %q", got, want)
	}
	if got := alsoSaid(); got != "" {
		t.Errorf("the second said %q", got)
	}
}

// TestUDPProxy: waybill proxy relays datagrams.
func TestUDPProxy(t *testing.T) {
	standin.Redirect(t, standin.Policy{}, 7001)
	proxy, said := command(t, "proxy", "udp:127.0.0.1:7001", "127.0.0.1:7001") // in this order
	start(t, "127.0.0.1:7001", proxy)
	app, err := net.ListenPacket("udp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	if _, err := app.WriteTo([]byte("ping"), &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: standin.OriginPort}); err != nil {
		t.Fatal(err)
	}
	app.SetReadDeadline(time.Now().Add(10 * time.Second))
	heard := make([]byte, 64)
	n, _, err := app.ReadFrom(heard)
	if string(heard[:n]) != "pong ping" || err != nil {
		t.Errorf("application heard %q, %v", heard[:n], err)
	}
	if n := standin.Redirects(t); n != 1 {
		t.Errorf("%d redirects, want 1", n)
	}
	if got, want := said(), "\n-> 192.0.2.1:8080/udp: 4 bytes\n"; !strings.HasSuffix(got, want) {
		t.Errorf("it said %q, want %q", got, want)
	}
}

func TestCommands(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want []string
		fail bool
	}{
		{[]string{"version"}, []string{"waybill ", " windows/amd64\n"}, false},
		{[]string{"doctor"}, []string{"\n  ok       Winsock knows redirect records", "\nredirectors\n", "the Base Filtering Engine does not run"}, true},
		{[]string{"doctor", "--json"}, []string{`{"findings":[{"check":"windows","level":"ok","subject":"Windows 10.0`}, true},
		{[]string{"proxy"}, []string{"waybill: proxy: no address given\nhint: "}, true},
		{[]string{"run"}, []string{"unknown command \"run\""}, true},
		{[]string{"help"}, []string{"  doctor ", "  proxy ", "  version "}, false},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			cmd, output := command(t, tt.args...)
			if err := cmd.Run(); (err != nil) != tt.fail {
				t.Errorf("exit status: %v, want failure %t", err, tt.fail)
			}
			for _, want := range tt.want {
				if got := output(); !strings.Contains(got, want) {
					t.Errorf("%q is missing from\n%s", want, got)
				}
			}
		})
	}
}
