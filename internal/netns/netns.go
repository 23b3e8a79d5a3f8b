//go:build linux

// Package netns makes network namespaces and runs code inside them.
package netns

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NetNS is a network namespace. It lives as long as it is not closed or a
// process or socket is inside: the kernel removes it when the last one goes.
type NetNS struct{ file *os.File }

// New makes a network namespace with a loopback device that is up and, beside
// 127.0.0.1 and ::1, has the given addresses.
func New(addrs ...netip.Addr) (*NetNS, error) {
	ns := &NetNS{}
	err := onOwnThread(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		if ns.file, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		return setUpLoopback(addrs)
	})
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

// Close lets go of the namespace.
func (ns *NetNS) Close() error {
	if ns.file == nil {
		return nil
	}
	return ns.file.Close()
}

// Do runs f inside the namespace. Sockets that f creates belong to it for
// good, and processes that f starts are inside: a child inherits the
// namespace of the thread that forks it.
func (ns *NetNS) Do(f func() error) error {
	return onOwnThread(func() error {
		if err := unix.Setns(int(ns.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("setns", err)
		}
		return f()
	})
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

func setUpLoopback(addrs []netip.Addr) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for _, a := range addrs {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}}
		addr.Flags = unix.IFA_F_NODAD // usable at once
		if err := netlink.AddrAdd(lo, addr); err != nil {
			return err
		}
	}
	return nil
}
