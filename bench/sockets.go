//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// backlog holds a whole batch, should the acceptor not get to run.
const backlog = 4096

// listen opens a listener on a port of the kernel's choice.
func listen(flags int) (fd int, port uint16, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|flags, 0)
	if err != nil {
		return -1, 0, fmt.Errorf("open listener: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback.As4()}); err != nil {
		return -1, 0, fmt.Errorf("bind listener: %w", err)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return -1, 0, fmt.Errorf("listen: %w", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return -1, 0, fmt.Errorf("read address of listener: %w", err)
	}
	return fd, uint16(name.(*unix.SockaddrInet4).Port), nil
}

const drainPause = time.Millisecond

// drain is the other end of the timed connections: it accepts and closes. It
// looks for them from time to time and never sleeps in accept(): to wake it
// would be the work of the caller's connect(), and the wake-up of another CPU
// costs more, and varies more, than what is measured.
func drain() error {
	listener, port, err := listen(unix.SOCK_NONBLOCK)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(reply{Port: port}); err != nil {
		return fmt.Errorf("write port: %w", err)
	}
	go exitWithBench()
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		switch {
		case err == nil:
			unix.Close(fd)
		case errors.Is(err, unix.EAGAIN):
			time.Sleep(drainPause)
		case !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNABORTED):
			return fmt.Errorf("accept: %w", err)
		}
	}
}

// exitWithBench ends an acceptor when the bench is gone and the pipe with it.
func exitWithBench() {
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// dial connects and keeps the socket; with records it is a proxy's upstream.
func (c *child) dial(o order) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	c.held = append(c.held, fd)
	if len(o.Records) > 0 {
		if err := unix.SetsockoptString(fd, solWaybill, optRecords, string(o.Records)); err != nil {
			return fmt.Errorf("set %d bytes of records: %w", len(o.Records), err)
		}
	}
	to := o.To[0]
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
		return fmt.Errorf("connect to %s: %w", to, err)
	}
	return nil
}

// accept keeps the accepted socket for opGet. Outside the scope there are no
// records, and that is no error.
func (c *child) accept() ([]byte, error) {
	fd, _, err := unix.Accept4(c.listener, unix.SOCK_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("accept: %w", err)
	}
	c.held = append(c.held, fd)
	c.accepted = fd
	records := make([]byte, recordsMax)
	size := uint32(len(records))
	if errno := getsockopt(fd, solWaybill, optRecords, records, &size); errno != 0 {
		return nil, nil
	}
	return records[:size], nil
}

// release closes what dial and accept kept, without leaving TIME_WAIT behind.
func (c *child) release() {
	for _, fd := range c.held {
		resetOnClose(fd)
		unix.Close(fd)
	}
	for _, fd := range c.flows {
		unix.Close(fd)
	}
	c.held, c.accepted, c.flows = nil, -1, nil
}

func resetOnClose(fd int) error {
	return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// getsockopt enters the kernel without a word to Go's scheduler, as all timed
// calls do.
func getsockopt(fd, level, name int, value []byte, size *uint32) unix.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(unsafe.SliceData(value))), uintptr(unsafe.Pointer(size)), 0)
	return errno
}

func setsockopt(fd, level, name int, value []byte) unix.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(unsafe.SliceData(value))), uintptr(len(value)), 0)
	return errno
}
