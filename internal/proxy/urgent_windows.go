package proxy

import (
	"errors"
	"io"
	"net"

	"golang.org/x/sys/windows"
)

// soOOBInline is SO_OOBINLINE, which x/sys/windows does not have.
const soOOBInline = 0x0100

// alarm has nothing to do: nothing here reads past an urgent byte. It goes on
// as an ordinary one, at its place.
type alarm struct{}

func newAlarm() (*alarm, error) { return &alarm{}, nil }

func (*alarm) close() {}

func (*alarm) run() {}

func (*alarm) add(*net.TCPConn) (remove func()) { return func() {} }

// keepUrgent leaves urgent bytes in the stream.
func keepUrgent(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(s uintptr) {
		setErr = windows.SetsockoptInt(windows.Handle(s), windows.SOL_SOCKET, soOOBInline, 1)
	})
	return errors.Join(err, setErr)
}

func readPart(src *net.TCPConn, buf []byte) (n int, urgent bool, err error) {
	n, err = src.Read(buf)
	return n, false, err
}

func sendPart(dst *net.TCPConn, part []byte, _ bool) error {
	_, err := dst.Write(part)
	return err
}

// copyAll copies one direction to its end.
func copyAll(dst, src *net.TCPConn) error {
	_, err := io.Copy(dst, src)
	return err
}
