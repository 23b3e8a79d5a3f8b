package proxy

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// choosePortLate makes bind() leave the port to connect(), which can use one
// again for another destination.
func choosePortLate(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		// An error leaves fewer ports, nothing worse.
		unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
}
