//go:build kernels

package engine_test

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/waybill-net/waybill"
	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/proxy"
	"github.com/waybill-net/waybill/internal/routes"
	"github.com/waybill-net/waybill/internal/testenv"
)

// TestKernelDatagrams is TestKernel for UDP: connected and unconnected, through
// two proxies and back. The program sees its own address and no proxy's.
func TestKernelDatagrams(t *testing.T) {
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	startDatagramOrigin(t, env)
	apply(t, e, udpChain(env, "a", "b"))
	env.Inside(func() error {
		f, err := routes.New(e)
		if err != nil {
			return err
		}
		return f.Close() // what it has told counts for longer than this test takes
	})
	for i, name := range []string{"a", "b"} {
		program, args := kernelDatagramProgram("relay", fmt.Sprint(7001+i))
		env.Start(name, program, args...)
	}
	for _, ip := range []netip.Addr{testenv.Outside4, testenv.Outside6} {
		dst := netip.AddrPortFrom(ip, originPort)
		program, args := kernelDatagramProgram("ask", dst.String())
		out := strings.TrimSuffix(env.Run("app", program, args...), "PASS\n")
		if want := fmt.Sprintf("%v to %v: %v x\n%v: %v x\n", ip, dst, ip, dst, ip); out != want {
			t.Errorf("got %q, want %q", out, want)
		}
	}
	if c := counters(t, e); c["redirected"] != 8 || c["set"] != 8 {
		t.Errorf("counters %v", c)
	}
	waitPeers(t, e, 4) // those of the proxies, which have not heard that the application has ended
}

// TestKernelDatagramProgram is no test but the programs that it starts.
func TestKernelDatagramProgram(t *testing.T) {
	switch args := flag.Args(); {
	case len(args) == 2 && args[0] == "ask":
		for _, ask := range []func(string) error{askConnected, askUnconnected} {
			if err := ask(args[1]); err != nil {
				fmt.Println(err)
			}
		}
	case len(args) == 2 && args[0] == "relay":
		t.Fatal(relayKernelDatagrams(args[1]))
	default:
		t.Skip("started without the name of a program")
	}
}

func kernelDatagramProgram(args ...string) (program string, arguments []string) {
	return "/proc/self/exe", append([]string{"-test.run=^TestKernelDatagramProgram$"}, args...)
}

func relayKernelDatagrams(port string) error {
	done := make(chan error)
	for _, host := range []string{"127.0.0.1", "::1"} {
		l, err := waybill.ListenPacket(context.Background(), "udp", net.JoinHostPort(host, port))
		if err != nil {
			return err
		}
		go func() { done <- new(proxy.Packets).Serve(context.Background(), l) }()
	}
	os.Stdout.WriteString("ready\n")
	return <-done
}

const kernelDatagramTimeout = 10 * time.Second

func askConnected(address string) error {
	c, err := net.Dial("udp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(kernelDatagramTimeout))
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	buf := make([]byte, 99)
	n, err := c.Read(buf)
	fmt.Printf("%v to %v: %s\n", c.LocalAddr().(*net.UDPAddr).IP, c.RemoteAddr(), buf[:n])
	return err
}

func askUnconnected(address string) error {
	c, err := net.ListenUDP("udp", nil)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(kernelDatagramTimeout))
	if _, err := c.WriteToUDPAddrPort([]byte("x"), netip.MustParseAddrPort(address)); err != nil {
		return err
	}
	buf := make([]byte, 99)
	n, from, err := c.ReadFromUDPAddrPort(buf)
	fmt.Printf("%v: %s\n", netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), buf[:n])
	return err
}
