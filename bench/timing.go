//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	warmUp = 20 // calls at the start of a batch: another process has just used the caches
	// An option costs little more than reading the clock does: time several at once.
	chunk = 10
)

var epoch = time.Now()

// now reads the monotonic clock alone.
func now() time.Duration { return time.Since(epoch) }

func nanoseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) }

// timeConnects opens n connections, one after the other, and closes each with
// a reset. It returns the time of each connect(), and that of all three calls.
func timeConnects(to []netip.AddrPort, n int) (connects, cycles []float64, err error) {
	addrs := make([]unix.RawSockaddrInet4, len(to))
	for i := range to {
		addrs[i] = sockaddr(to[i])
	}
	for i := range warmUp + n {
		addr := &addrs[i%len(addrs)]
		opening := now()
		fd, _, errno := unix.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		opened := now()
		if errno != 0 {
			return nil, nil, fmt.Errorf("open socket: %w", errno)
		}
		_, _, errno = unix.RawSyscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(addr)), unsafe.Sizeof(*addr))
		connected := now()
		if errno != 0 {
			unix.Close(int(fd))
			return nil, nil, fmt.Errorf("connect to %s: %w", to[i%len(to)], errno)
		}
		if err := resetOnClose(int(fd)); err != nil { // not timed: no part of a connection
			return nil, nil, fmt.Errorf("set SO_LINGER: %w", err)
		}
		closing := now()
		unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
		closed := now()
		if i >= warmUp {
			connects = append(connects, nanoseconds(connected-opened))
			cycles = append(cycles, nanoseconds(connected-opening+closed-closing))
		}
	}
	return connects, cycles, nil
}

func sockaddr(to netip.AddrPort) unix.RawSockaddrInet4 {
	addr := unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.Addr().As4()}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&addr.Port))[:], to.Port())
	return addr
}

// timeStrays connects to an address without a route. The kernel runs the hook
// and then looks for the route: no packet, no other hook, and the socket can
// be used again. No call on a TCP socket that runs the hook costs less, so
// none shows the hook better.
func timeStrays(to netip.AddrPort, n int) ([]float64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	addr := sockaddr(to)
	return timeChunks(n, func() (time.Duration, error) {
		other := unix.ENETUNREACH
		began := now()
		for range chunk {
			_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&addr)), unsafe.Sizeof(addr))
			if errno != unix.ENETUNREACH {
				other = errno
			}
		}
		took := now() - began
		if other != unix.ENETUNREACH {
			return 0, fmt.Errorf("connect to %s: error %q, want %q", to, other, unix.ENETUNREACH)
		}
		return took, nil
	})
}

// timeChunks calls f, which makes `chunk` calls and returns the time they
// took, until n calls are measured.
func timeChunks(n int, f func() (time.Duration, error)) ([]float64, error) {
	var samples []float64
	for i := range (warmUp + n + chunk - 1) / chunk {
		d, err := f()
		if err != nil {
			return nil, err
		}
		if i >= warmUp/chunk {
			samples = append(samples, nanoseconds(d)/chunk)
		}
	}
	return samples, nil
}

// timeSets sets an option on fresh sockets.
func timeSets(o option, n int) ([]float64, error) {
	return timeChunks(n, func() (time.Duration, error) {
		var fds [chunk]int
		for i := range fds {
			var err error
			if fds[i], err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
				return 0, fmt.Errorf("open socket: %w", err)
			}
			defer unix.Close(fds[i])
		}
		var failed unix.Errno
		began := now()
		for _, fd := range fds {
			if errno := setsockopt(fd, o.Level, o.Name, o.Value); errno != 0 {
				failed = errno
			}
		}
		took := now() - began
		if failed != 0 {
			return 0, fmt.Errorf("set option %#x/%d to %d bytes: %w", o.Level, o.Name, len(o.Value), failed)
		}
		return took, nil
	})
}

// timeGets reads an option from one socket, again and again.
func timeGets(fd int, o option, n int) ([]float64, error) {
	buf := make([]byte, o.Size)
	return timeChunks(n, func() (time.Duration, error) {
		var failed unix.Errno
		began := now()
		for range chunk {
			size := uint32(len(buf))
			if errno := getsockopt(fd, o.Level, o.Name, buf, &size); errno != 0 {
				failed = errno
			}
		}
		took := now() - began
		if failed != 0 {
			return 0, fmt.Errorf("read option %#x/%d: %w", o.Level, o.Name, failed)
		}
		return took, nil
	})
}
