package waybill_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/waybill-net/waybill/internal/cgroup"
	"github.com/waybill-net/waybill/internal/datagram"
	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/netns"
	"github.com/waybill-net/waybill/internal/policy"
)

// The tests of this package run as a proxy does: in the cgroup of provider
// "self" of a real engine, in a network namespace of their own. TestMain sets
// that up and runs the same binary again inside.
//
// Connections to port 80 are redirected to port 7001, where the tests listen.
const insideVar = "WAYBILL_TEST_SCOPE"

var (
	origin4   = netip.MustParseAddr("192.0.2.1")
	beside4   = netip.MustParseAddr("192.0.2.2")
	origin6   = netip.MustParseAddr("2001:db8::1")
	proxyAddr = netip.MustParseAddrPort("127.0.0.1:7001")
)

func TestMain(m *testing.M) {
	if os.Getenv(insideVar) != "" {
		os.Exit(m.Run())
	}
	code, err := runInside()
	if err != nil {
		fmt.Fprintln(os.Stderr, "set up the tests:", err)
		code = 1
	}
	os.Exit(code)
}

func runInside() (int, error) {
	scope, err := cgroup.CreateTemporary(fmt.Sprintf("waybill-test-%d", os.Getpid()))
	if err != nil {
		return 0, err
	}
	defer scope.Close()
	ns, err := netns.New(origin4, beside4, origin6)
	if err != nil {
		return 0, err
	}
	defer ns.Close()
	if err := ns.Do(serveOrigin); err != nil {
		return 0, err
	}
	e, err := engine.Open(engine.Options{Scope: scope.Dir})
	if err != nil {
		return 0, err
	}
	defer e.Close()
	if err := os.Mkdir(filepath.Join(scope.Dir, "self"), 0o755); err != nil {
		return 0, err
	}
	if err := os.Mkdir(filepath.Join(scope.Dir, "app"), 0o755); err != nil {
		return 0, err
	}
	if err := e.Apply(selfPolicy(scope.Dir)); err != nil {
		return 0, err
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideVar+"="+scope.Dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err = startIn(cmd, filepath.Join(scope.Dir, "self"), ns.Do)
	if err != nil {
		return 0, err
	}
	cmd.Wait()
	return cmd.ProcessState.ExitCode(), nil
}

func selfPolicy(scope string) policy.Policy {
	return policy.Policy{
		Providers: []policy.Provider{{
			Name:    "self",
			Listen:  proxyAddr,
			Listen6: netip.AddrPortFrom(netip.IPv6Loopback(), proxyAddr.Port()),
			UDP:     proxyAddr,
			UDP6:    netip.AddrPortFrom(netip.IPv6Loopback(), proxyAddr.Port()),
			Cgroup:  filepath.Join(scope, "self"),
		}},
		Filters: []policy.Filter{{
			Provider: "self", Protocols: []policy.Protocol{policy.TCP, policy.UDP},
			Ports: []policy.PortRange{policy.Port(80)}, Context: []byte("tenant=42"),
		}},
	}
}

// startIn starts a program in a cgroup.
func startIn(cmd *exec.Cmd, dir string, in func(func() error) error) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
	return in(cmd.Start)
}

// application starts a program in front of which the proxy stands. It
// connects to an address, says "ping", prints what it hears, and returns that
// when the returned function is called.
func application(address string) func() string {
	host, port, _ := net.SplitHostPort(address)
	return startPython(`
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=30) as s:
    try:
        s.sendall(b"ping")
        s.shutdown(socket.SHUT_WR)
        while data := s.recv(4096):
            print(data.decode(), end="")
    except OSError:
        pass  # the test has closed the connection
`, host, port)
}

// datagrams is an application of UDP: lines of Python that print something.
func datagrams(lines string) func() string {
	return startPython(`
import socket
def udp(family=socket.AF_INET):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(10)
    return s
` + lines)
}

// startPython returns what the program prints when the returned function is
// called.
func startPython(program string, args ...string) func() string {
	cmd := exec.Command("python3", append([]string{"-c", program}, args...)...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	dir := filepath.Join(os.Getenv(insideVar), "app")
	if err := startIn(cmd, dir, func(start func() error) error { return start() }); err != nil {
		panic(err)
	}
	return func() string {
		cmd.Wait()
		return strings.TrimSpace(out.String())
	}
}

// serveDatagrams answers on UDP port 80 of one address with what it was sent, as
// a network would that is congested: ECN-capable datagrams come back marked.
func serveDatagrams(host string) error {
	c, err := net.ListenPacket("udp", net.JoinHostPort(host, "80"))
	if err != nil {
		return err
	}
	socket, err := datagram.NewSocket(c.(*net.UDPConn), 4<<20)
	if err != nil {
		return err
	}
	go socket.Read(func(messages []datagram.Message) bool {
		for _, m := range messages {
			for more := true; more; {
				var first datagram.Message
				first, m, more = m.Cut()
				if first.TOS&3 != 0 {
					first.TOS |= 3
				}
				socket.WriteTOS(append([]byte("pong "), first.Data...), first.TOS, first.Peer)
			}
		}
		return true
	}, func(error) {})
	return nil
}

// serveOrigin answers "pong" on port 80.
func serveOrigin() error {
	for _, a := range []netip.Addr{origin4, beside4, origin6} {
		if err := serveDatagrams(a.String()); err != nil {
			return err
		}
	}
	l, err := net.Listen("tcp", ":80")
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(io.Discard, c)
				io.WriteString(c, "pong")
			}()
		}
	}()
	return nil
}
