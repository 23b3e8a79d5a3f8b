//go:build linux

package main

import (
	"fmt"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// loopbackUp brings up the loopback device of the calling thread's network
// namespace; a new one has it down.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, request); err != nil {
		return fmt.Errorf("read the flags of lo: %w", err)
	}
	request.SetUint16(request.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}

// A chain of type nat turns connection tracking on, in this namespace alone.
const redirectTable = `table ip bench {
	chain output {
		type nat hook output priority -100; policy accept;
		ip daddr 127.0.0.1 tcp dport %d redirect to :%d
		ip daddr 127.0.0.1 tcp dport %d redirect to :%d
	}
}
`

// redirectWithNft makes the peer that waybill is compared with.
func redirectWithNft(drained, held uint16) error {
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(redirectTable, unservedPort, drained, heldPort, held))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("load nft table: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
