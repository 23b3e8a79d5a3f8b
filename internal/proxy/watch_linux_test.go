package proxy_test

import (
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/waybill-net/waybill/internal/testenv"
)

// quickest runs lines of Python that end with a value in `got`, some times, and
// returns that of the quickest, if that was quicker than the wait of a proxy
// that inspects.
func quickest(env *testenv.Env, lines string) string {
	return strings.TrimSpace(env.Run("app", "python3", "-c", `
import socket, time
def once():
    start = time.monotonic()
`+lines+`
    return time.monotonic() - start, got
took, got = min(once() for _ in range(5))
print(got if took < 0.2 else f"only after {took} s")
`))
}

// TestWatcherLetsServerSpeakFirst: a proxy that does not inspect lets the
// server speak at once.
func TestWatcherLetsServerSpeakFirst(t *testing.T) {
	t.Parallel()
	env, watcher := startRole(t, "watcher")
	serve(t, env.Listen(":80"), func(c *net.TCPConn) {
		defer c.Close()
		io.WriteString(c, "220 welcome")
		io.Copy(io.Discard, c)
	})
	got := quickest(env, `
    s = socket.create_connection(("192.0.2.1", 80), timeout=20)
    got = s.recv(100).decode()`)
	if got != "220 welcome" {
		t.Errorf("client heard %s", got)
	}
	if got, want := watcher.Stop(syscall.SIGTERM), `"" pass <nil>`; got != want {
		t.Errorf("event %s, want %s", got, want)
	}
}

// TestWatcherPassesRefusalOn: a silent client hears at once that its
// destination refuses.
func TestWatcherPassesRefusalOn(t *testing.T) {
	t.Parallel()
	env, watcher := startRole(t, "watcher")
	got := quickest(env, `
    try:
        got = socket.create_connection(("192.0.2.1", 80), timeout=20).recv(1)
    except ConnectionResetError:
        got = "reset"`)
	if got != "reset" {
		t.Errorf("client got %s, want a reset", got)
	}
	if got := watcher.Stop(syscall.SIGTERM); !strings.HasSuffix(got, "connection refused") {
		t.Errorf("event %s, want a refusal", got)
	}
}

// TestWatcherReports: the first bytes of clients that speak first.
func TestWatcherReports(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, lines, want string }{
		{"request", `s.sendall(b"hello"); assert s.recv(100) == b"hello"`, `"hello" pass <nil>`},
		{"end", `s.shutdown(socket.SHUT_WR); assert s.recv(100) == b""`, `"" pass <nil>`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			env, watcher := startRole(t, "watcher")
			serve(t, env.Listen(":80"), func(c *net.TCPConn) {
				defer c.Close()
				io.Copy(c, c)
			})
			client(env, tt.lines)
			if got := watcher.Stop(syscall.SIGTERM); got != tt.want {
				t.Errorf("event %s, want %s", got, tt.want)
			}
		})
	}
}
