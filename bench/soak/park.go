//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// playParking listens and drops every packet that comes to the listener, by a
// socket filter. Connections to it stay in the in-flight map until their
// clients give up, and the listener's queue stays empty.
func playParking(address string) error {
	addr, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop})
	if err == nil {
		err = unix.Bind(fd, sockaddr(addr))
	}
	if err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	if err != nil {
		return fmt.Errorf("listen on %s: %w", addr, err)
	}
	return readyUntilEOF()
}

// playParker begins as many connections as it is told, and keeps them until
// its input ends.
func playParker(count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	if err := allowFiles(n + 100); err != nil {
		return err
	}
	dst := sockaddr(netip.MustParseAddrPort(parkingDst))
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		// Those that find the map full bypass the provider, and nobody listens there.
		if err := unix.Connect(fd, dst); err != nil && !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.ECONNREFUSED) {
			return os.NewSyscallError("connect", err)
		}
	}
	return readyUntilEOF()
}

func sockaddr(a netip.AddrPort) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}

func allowFiles(n int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	limit.Cur = max(limit.Cur, uint64(n))
	limit.Max = max(limit.Max, limit.Cur)
	return os.NewSyscallError("setrlimit", unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
}

const ready = "ready"

func readyUntilEOF() error {
	fmt.Println(ready)
	io.Copy(io.Discard, os.Stdin)
	return nil
}

// helper is a process that says when it is ready and ends with its input.
type helper struct {
	cmd *exec.Cmd
	in  io.Closer
}

func (s *scene) startHelper(cgroupName, role string, args ...string) (*helper, error) {
	cmd := roleCommand(role, args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.start(cgroupName, cmd); err != nil {
		return nil, err
	}
	h := &helper{cmd, in}
	buf := make([]byte, len(ready)+1)
	if _, err := io.ReadFull(out, buf); err != nil || strings.TrimSpace(string(buf)) != ready {
		return nil, errors.Join(fmt.Errorf("start %s: it is not ready", role), h.stop())
	}
	return h, nil
}

func (h *helper) stop() error {
	h.in.Close()
	return h.cmd.Wait()
}
