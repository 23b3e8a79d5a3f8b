//go:build kernels

package engine_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/waybill-net/waybill"
	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/testenv"
)

// These tests run as process 1's child in virtual machines that .ci/kernels
// boots. Such a machine has this binary, a shell and nothing else, so the
// programs that the tests start are this binary too: see TestKernelProgram.

// TestKernel uses each hook and iterator once, over IPv4 and IPv6. What the
// verifier accepts and what the helpers do differs between kernels; the
// details are left to the tests that run on one.
func TestKernel(t *testing.T) {
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	go serveKernelOrigin(env.Listen("[::]:8080"), env, e)

	a := startKernelProxy(t, env, "a", 7001) // listens before Apply
	apply(t, e, policy.Policy{
		Providers: []policy.Provider{
			kernelProvider(env, "a", 2, 7001, policy.Bypass),
			kernelProvider(env, "b", 1, 7002, policy.Block),
		},
		Filters: []policy.Filter{
			{Provider: "a", Context: []byte("for a")}, // without a destination: all that leaves the machine
			{Provider: "b", Context: []byte("for b")},
		},
	})
	b := startKernelProxy(t, env, "b", 7002) // and one after it

	for _, ip := range []netip.Addr{testenv.Outside4, testenv.Outside6} {
		dst := netip.AddrPortFrom(ip, 8080)
		out, pid := runKernelApp(t, env, dst)
		expectLines(t, out, reached(pid, dst), passed("a", 1, pid, dst), passed("b", 2, pid, dst), originSaw(5))
	}

	dst := netip.AddrPortFrom(testenv.Outside4, 8080)
	a.Kill()
	out, pid := runKernelApp(t, env, dst)
	expectLines(t, out, reached(pid, dst), passed("b", 1, pid, dst), originSaw(3))
	b.Kill()
	out, pid = runKernelApp(t, env, dst)
	expectLines(t, out, fmt.Sprintf("app %d: dial tcp %v: connect: permission denied", pid, dst))
	expectCounters(t, e)
}

// TestKernelTooOld expects to be told what the kernel lacks.
func TestKernelTooOld(t *testing.T) {
	e, err := engine.Open(engine.Options{Scope: testenv.New(t).Scope})
	if err == nil {
		e.Close()
		t.Fatal("Open succeeded")
	}
	var missing *engine.FeatureError
	if !errors.As(err, &missing) || missing.Feature == "" || missing.Since == "" || missing.Running == "" {
		t.Fatalf("want a FeatureError, got: %v", err)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Fatalf("want one line, got: %v", err)
	}
	t.Log(err)
}

// TestKernelProgram is no test but the programs that the tests above start.
func TestKernelProgram(t *testing.T) {
	switch args := flag.Args(); {
	case len(args) == 2 && args[0] == "app":
		kernelApp(args[1])
	case len(args) == 3 && args[0] == "proxy":
		t.Fatal(kernelProxy(args[1], args[2]))
	default:
		t.Skip("started without the name of a program")
	}
}

func kernelProgram(args ...string) (program string, arguments []string) {
	return "/proc/self/exe", append([]string{"-test.run=^TestKernelProgram$"}, args...)
}

func kernelProvider(env *testenv.Env, name string, weight int32, port uint16, down policy.OnDown) policy.Provider {
	return policy.Provider{
		Name:    name,
		Weight:  weight,
		Listen:  netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port),
		Listen6: netip.AddrPortFrom(netip.IPv6Loopback(), port),
		Cgroup:  env.Cgroup(name),
		OnDown:  down,
	}
}

func startKernelProxy(t *testing.T, env *testenv.Env, name string, port uint16) *testenv.Server {
	t.Helper()
	program, args := kernelProgram("proxy", name, fmt.Sprintf("[::]:%d", port))
	return env.Start(name, program, args...)
}

// runKernelApp returns what the application printed, and its process.
func runKernelApp(t *testing.T, env *testenv.Env, dst netip.AddrPort) (out string, pid int) {
	t.Helper()
	program, args := kernelProgram("app", dst.String())
	out = strings.TrimSuffix(env.Run("app", program, args...), "PASS\n") // that the test function adds
	if _, err := fmt.Sscanf(out, "app %d:", &pid); err != nil {
		t.Fatalf("%v in: %s", err, out)
	}
	return out, pid
}

// The application prints one line, and so does all that it is connected
// through: the proxies in turn and the origin. An error anywhere shows in
// place of the line that is expected.

func kernelApp(address string) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		fmt.Printf("app %d: %v\n", os.Getpid(), err)
		return
	}
	defer c.Close()
	fmt.Printf("app %d: connected to %v\n", os.Getpid(), c.RemoteAddr()) // as getpeername says
	io.Copy(os.Stdout, c)
}

func reached(pid int, dst netip.AddrPort) string {
	return fmt.Sprintf("app %d: connected to %v", pid, dst)
}

func serveKernelOrigin(l net.Listener, env *testenv.Env, e *engine.Engine) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		if flows, err := flowsIn(env, e); err != nil {
			fmt.Fprintf(c, "origin: %v\n", err)
		} else {
			fmt.Fprintf(c, "%s\n", originSaw(len(flows)))
		}
		c.Close()
	}
}

func originSaw(flows int) string {
	return fmt.Sprintf("origin: %d sockets carry records", flows)
}

func kernelProxy(name, address string) error {
	l, err := waybill.Listen(context.Background(), "tcp", address)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for {
		c, err := l.AcceptConn()
		if err != nil {
			return err
		}
		if err := forward(name, c); err != nil {
			fmt.Fprintf(c, "%s: %v\n", name, err)
		}
		c.Close()
	}
}

// forward says what the kernel tells of the connection, and connects to its
// destination with its records.
func forward(name string, c *waybill.Conn) error {
	attached, err := waybill.QueryContext(c)
	if err != nil {
		return err
	}
	state, hops, err := waybill.QueryState(c)
	if err != nil {
		return err
	}
	if state != waybill.RedirectedBySelf || string(attached) != "for "+name {
		return fmt.Errorf("the state is %v and the context %q", state, attached)
	}
	if dst, err := netfilterDst(c); err != nil || dst != c.OriginalDestination() {
		return fmt.Errorf("the destination is %v, but SO_ORIGINAL_DST says %v, %v", c.OriginalDestination(), dst, err)
	}
	if err := tryAltered(c); !errors.Is(err, waybill.ErrInvalidRecords) {
		return fmt.Errorf("set altered records: %v, want %w", err, waybill.ErrInvalidRecords)
	}
	fmt.Fprintln(c, passed(name, hops, int(c.Origin().TGID), c.OriginalDestination()))

	var d waybill.Dialer
	out, err := d.DialOriginal(context.Background(), c)
	if err != nil {
		return err
	}
	defer out.Close()
	_, err = io.Copy(c, out)
	return err
}

func passed(name string, hops, pid int, dst netip.AddrPort) string {
	return fmt.Sprintf("%s: hop %d of %d to %v", name, hops, pid, dst)
}

// netfilterDst asks as a proxy does that knows nothing of waybill.
func netfilterDst(c *waybill.Conn) (dst netip.AddrPort, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return dst, err
	}
	cerr := raw.Control(func(fd uintptr) {
		if c.OriginalDestination().Addr().Is6() {
			// Any option that begins with a struct sockaddr_in6 will do.
			var info *unix.IPv6MTUInfo
			if info, err = unix.GetsockoptIPv6MTUInfo(int(fd), unix.SOL_IPV6, unix.SO_ORIGINAL_DST); err == nil {
				port := info.Addr.Port<<8 | info.Addr.Port>>8
				dst = netip.AddrPortFrom(netip.AddrFrom16(info.Addr.Addr), port)
			}
			return
		}
		// And here any of 16 bytes, the size of a struct sockaddr_in, or more.
		var mreq *unix.IPv6Mreq
		if mreq, err = unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, unix.SO_ORIGINAL_DST); err == nil {
			b := mreq.Multiaddr
			dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:4]))
		}
	})
	return dst, errors.Join(cerr, err)
}

// tryAltered dials with records of which one bit is not as it was.
func tryAltered(c *waybill.Conn) error {
	altered := bytes.Clone(c.Records())
	altered[len(altered)/2] ^= 1
	var d waybill.Dialer
	out, err := d.DialContext(context.Background(), altered, "tcp", c.OriginalDestination().String())
	if err == nil {
		out.Close()
	}
	return err
}

func expectLines(t *testing.T, out string, want ...string) {
	t.Helper()
	if w := strings.Join(want, "\n") + "\n"; out != w {
		t.Errorf("got:\n%swant:\n%s", out, w)
	}
}

// expectCounters adds up what TestKernel did: two connections through a and
// b, one with a down, which b's own connection is bypassed at too, and one
// with both down.
func expectCounters(t *testing.T, e *engine.Engine) {
	t.Helper()
	c, err := e.Counters()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]uint64{
		"redirected": 5, "departed": 5, "arrived": 5, "set": 5, "set_forged": 5,
		"bypassed": 3, "blocked": 1, "down_no_listener": 4, "lost": 0, "abandoned": 0,
	} {
		if c[name] != want {
			t.Errorf("counter %s is %d, want %d", name, c[name], want)
		}
	}
}
