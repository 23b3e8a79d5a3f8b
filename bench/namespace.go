//go:build linux

package main

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// setUpLoopback brings up the loopback device of the calling thread's network
// namespace, which a new one has down, and gives it the unserved addresses.
func setUpLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set up lo: %w", err)
	}
	defer unix.Close(fd)
	if err := bringUp(fd, "lo"); err != nil {
		return err
	}
	return addNetwork(fd, "lo:1", netip.PrefixFrom(unserved.Addr(), unservedNet.Bits()))
}

func bringUp(fd int, device string) error {
	request, err := unix.NewIfreq(device)
	if err != nil {
		return fmt.Errorf("bring up %s: %w", device, err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, request); err != nil {
		return fmt.Errorf("read the flags of %s: %w", device, err)
	}
	request.SetUint16(request.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("bring up %s: %w", device, err)
	}
	return nil
}

// addNetwork gives the loopback device an address under the name of an alias.
// On this device all addresses of its network are then local, not that one alone.
func addNetwork(fd int, alias string, network netip.Prefix) error {
	for _, set := range []struct {
		request uint
		value   []byte
	}{
		{unix.SIOCSIFADDR, network.Addr().AsSlice()},
		{unix.SIOCSIFNETMASK, net.CIDRMask(network.Bits(), 32)},
	} {
		if err := setInet4(fd, alias, set.request, set.value); err != nil {
			return fmt.Errorf("add %s to %s: %w", network, alias, err)
		}
	}
	return nil
}

func setInet4(fd int, device string, ioctl uint, value []byte) error {
	request, err := unix.NewIfreq(device)
	if err != nil {
		return err
	}
	if err := request.SetInet4Addr(value); err != nil {
		return err
	}
	return unix.IoctlIfreq(fd, ioctl, request)
}

// A chain of type nat turns connection tracking on, in this namespace alone.
const redirectTable = `table ip bench {
	chain output {
		type nat hook output priority -100; policy accept;
		ip daddr %s tcp dport %d redirect to :%d
		ip daddr %s tcp dport %d redirect to :%d
	}
}
`

// redirectWithNft makes the peer that waybill is compared with, for the
// acceptor and for the worker itself.
func redirectWithNft(acceptor, own uint16) error {
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(redirectTable,
		unserved.Addr(), unserved.Port(), acceptor, held.Addr(), held.Port(), own))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("load nft table: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
