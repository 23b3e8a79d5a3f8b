package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/waybill-net/waybill"
	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/proxy"
	"github.com/waybill-net/waybill/internal/testenv"
)

// The test binary is the proxy, too, as a process in the provider's cgroup.
const roleVar = "WAYBILL_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleVar) == "" {
		os.Exit(m.Run())
	}
	if err := play(); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}

// play blocks what contains "secret" and holds two connections at once.
func play() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	switch os.Getenv(roleVar) {
	case packetsRole:
		return playPackets(ctx, 0)
	case onePacketsRole:
		return playPackets(ctx, 1)
	}
	l, err := waybill.Listen(ctx, "tcp", "127.0.0.1:7001")
	if err != nil {
		return err
	}
	os.Stdout.WriteString("ready\n")
	p := proxy.Proxy{MaxConns: 2, Inspect: func(_ *waybill.Conn, first []byte) proxy.Verdict {
		if bytes.Contains(first, []byte("secret")) {
			return proxy.Block
		}
		return proxy.Pass
	}}
	if os.Getenv(roleVar) == "watcher" {
		p = proxy.Proxy{Report: func(e proxy.Event) { fmt.Printf("%q %v %v\n", e.First, e.Verdict, e.Err) }}
	}
	return p.Serve(ctx, l)
}

func start(t *testing.T) (*testenv.Env, net.Listener) {
	t.Helper()
	env, _ := startRole(t, "proxy")
	return env, env.Listen(":80")
}

// startRole starts a proxy in front of port 80, where nobody listens yet.
func startRole(t *testing.T, role string) (*testenv.Env, *testenv.Server) {
	t.Helper()
	env := testenv.New(t)
	e, err := engine.Open(engine.Options{Scope: env.Scope})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	listen := netip.MustParseAddrPort("127.0.0.1:7001")
	err = e.Apply(policy.Policy{
		Providers: []policy.Provider{{Name: "a", Listen: listen, UDP: listen, Cgroup: env.Cgroup("a")}},
		Filters: []policy.Filter{{
			Provider: "a", Protocols: []policy.Protocol{policy.TCP, policy.UDP}, Ports: []policy.PortRange{policy.Port(80)},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := env.Command("a", "/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVar+"="+role)
	return env, env.StartCommand(cmd)
}

// client runs lines of Python with a socket `s` that is connected to the
// origin.
func client(env *testenv.Env, lines string) string {
	return strings.TrimSpace(env.Run("app", "python3", "-c", `
import socket
s = socket.create_connection(("192.0.2.1", 80), timeout=20)
`+lines))
}

// readOrReset prints what comes.
const readOrReset = `
try:
    print(s.recv(100))
except ConnectionResetError:
    print("reset")
`

func serve(t *testing.T, l net.Listener, handle func(c *net.TCPConn)) {
	t.Helper()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go handle(c.(*net.TCPConn))
		}
	}()
}

func TestHalfClose(t *testing.T) {
	t.Parallel()
	env, l := start(t)
	serve(t, l, func(c *net.TCPConn) {
		defer c.Close()
		all, _ := io.ReadAll(c) // to the end of the client's half
		io.Copy(c, bytes.NewReader(bytes.ToUpper(all)))
	})
	got := client(env, `
s.sendall(b"x" * 3000000)
s.shutdown(socket.SHUT_WR)
n = 0
while data := s.recv(65536):
    assert data == b"X" * len(data)
    n += len(data)
print(n)
`)
	if got != "3000000" {
		t.Errorf("client got back %s bytes", got)
	}
}

// TestServerSpeaksFirst: the client is silent, or has sent its end already.
func TestServerSpeaksFirst(t *testing.T) {
	t.Parallel()
	env, l := start(t)
	serve(t, l, func(c *net.TCPConn) {
		defer c.Close()
		io.WriteString(c, "220 welcome")
	})
	for _, shutdown := range []string{"", "s.shutdown(socket.SHUT_WR)\n"} {
		if got := client(env, shutdown+"print(s.recv(100).decode())"); got != "220 welcome" {
			t.Errorf("client heard %q", got)
		}
	}
}

// TestBoundSource: the server sees a client that has bound its socket at the
// address that it has bound it to.
func TestBoundSource(t *testing.T) {
	t.Parallel()
	env, l := start(t)
	serve(t, l, func(c *net.TCPConn) {
		defer c.Close()
		io.WriteString(c, c.RemoteAddr().(*net.TCPAddr).IP.String())
	})
	for source, want := range map[string]string{"": "192.0.2.1", "127.0.0.2": "127.0.0.2", "192.0.2.1": "192.0.2.1"} {
		got := client(env, fmt.Sprintf(`
s = socket.create_connection(("192.0.2.1", 80), timeout=20, source_address=(%q, 0))
print(s.recv(100).decode())
`, source))
		if got != want {
			t.Errorf("server saw a client that is bound to %q at %s, want %s", source, got, want)
		}
	}
}

func TestBlockResets(t *testing.T) {
	t.Parallel()
	env, l := start(t)
	serve(t, l, func(c *net.TCPConn) {
		t.Error("a blocked connection reached the origin")
		c.Close()
	})
	got := client(env, `s.sendall(b"a secret")`+readOrReset)
	if got != "reset" {
		t.Errorf("client got %s, want a reset", got)
	}
}

// TestOriginResets: a reset is passed on as one.
func TestOriginResets(t *testing.T) {
	t.Parallel()
	env, l := start(t)
	serve(t, l, func(c *net.TCPConn) {
		c.Read(make([]byte, 100))
		c.SetLinger(0)
		c.Close()
	})
	got := client(env, `s.sendall(b"hello")`+readOrReset)
	if got != "reset" {
		t.Errorf("client got %s, want a reset", got)
	}
}

func TestMaxConns(t *testing.T) {
	t.Parallel()
	env, l := start(t)
	serve(t, l, func(c *net.TCPConn) {
		defer c.Close()
		io.Copy(c, c)
	})
	got := client(env, `
t = socket.create_connection(("192.0.2.1", 80), timeout=20)
for conn in (s, t):
    conn.sendall(b"x")
    assert conn.recv(1) == b"x"
u = socket.create_connection(("192.0.2.1", 80), timeout=20)
try:
    print(u.recv(1))
except ConnectionResetError:
    print(b"")
s.close()
t.close()
`)
	if got != "b''" {
		t.Errorf("the connection over the bound heard %s", got)
	}
}

// TestOutsideScope: where waybill is not active, every call says so.
func TestOutsideScope(t *testing.T) {
	l, err := waybill.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tcp := c.(*net.TCPConn)
	_, recordsErr := waybill.QueryRecords(tcp)
	_, contextErr := waybill.QueryContext(tcp)
	_, originErr := waybill.QueryOrigin(tcp)
	_, dstErr := waybill.OriginalDestination(tcp)
	_, _, stateErr := waybill.QueryState(tcp)
	setErr := waybill.SetRecords(tcp, waybill.Records("x"))
	serveErr := (&proxy.Proxy{}).Serve(t.Context(), l)
	for _, err := range []error{recordsErr, contextErr, originErr, dstErr, stateErr, setErr, serveErr} {
		if !errors.Is(err, waybill.ErrNotSupported) || !strings.Contains(err.Error(), "outside its scope") {
			t.Errorf("error %v, want ErrNotSupported with the reason", err)
		}
	}
}
