package testenv

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Addresses that reach this namespace and are not loopback ones: filters that
// name no loopback prefix match them. They are those of the documentation.
var (
	Outside4 = netip.MustParseAddr("192.0.2.1")
	Outside6 = netip.MustParseAddr("2001:db8::1")
)

// newNetNS makes a network namespace. It lives as long as the file is open or
// a process or socket is inside.
func newNetNS(t testing.TB) *os.File {
	t.Helper()
	var f *os.File
	err := onOwnThread(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		if f, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		return setUpLoopback()
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func setUpLoopback() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for _, a := range []netip.Addr{Outside4, Outside6} {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}}
		addr.Flags = unix.IFA_F_NODAD // usable at once
		if err := netlink.AddrAdd(lo, addr); err != nil {
			return err
		}
	}
	return nil
}

// onOwnThread runs f on a thread that ends with it. The goroutine does not
// unlock the thread, so the runtime discards it and no other goroutine ever
// runs in the namespace that f left behind.
func onOwnThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// Inside runs f in the network namespace of the test: sockets that f creates
// belong to it for good.
func (e *Env) Inside(f func() error) error {
	return onOwnThread(func() error {
		if err := unix.Setns(int(e.netns.Fd()), unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("setns", err)
		}
		return f()
	})
}

// Join makes e's programs run in the cgroups of other, in e's own network
// namespace.
func (e *Env) Join(other *Env) { e.Scope = other.Scope }

// startIn starts cmd in the network namespace of the test. A child inherits
// the namespace of the thread that forks it.
func (e *Env) startIn(cmd *exec.Cmd) error { return e.Inside(cmd.Start) }

// Listen listens on a TCP address inside the network namespace, until the
// test ends. The socket is outside the scope, as that of a remote server is.
func (e *Env) Listen(address string) net.Listener {
	e.t.Helper()
	var l net.Listener
	err := e.Inside(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { l.Close() })
	return l
}

// Sysctl sets a sysctl of the network namespace, such as
// "net/ipv4/tcp_fastopen".
func (e *Env) Sysctl(name, value string) {
	e.t.Helper()
	err := e.Inside(func() error { return os.WriteFile("/proc/sys/"+name, []byte(value), 0) })
	if err != nil {
		e.t.Fatal(err)
	}
}

// AddDevice adds a network device that leads nowhere, and a route to
// 192.0.2.64/26 by it.
func (e *Env) AddDevice(name string) {
	e.t.Helper()
	err := e.Inside(func() error {
		link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "-end"}
		if err := netlink.LinkAdd(link); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		addr, err := netlink.ParseAddr("192.0.2.65/26")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(link, addr)
	})
	if err != nil {
		e.t.Fatal(err)
	}
}
