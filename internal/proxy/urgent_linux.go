package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// alarm interrupts the reads of relays to whose sockets urgent data has come.
// splice(2), which moves their bytes, stops before an urgent byte for ever,
// and nothing that it returns tells that from a silent peer.
type alarm struct {
	epoll *os.File // waits as other files do: without a thread of its own

	mu    sync.Mutex
	conns map[int32]*net.TCPConn // by descriptor
}

func newAlarm() (*alarm, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return &alarm{epoll: os.NewFile(uintptr(fd), "epoll"), conns: make(map[int32]*net.TCPConn)}, nil
}

func (a *alarm) close() { a.epoll.Close() }

// run interrupts, until close.
func (a *alarm) run() {
	raw, err := a.epoll.SyscallConn()
	if err != nil {
		return
	}
	events := make([]unix.EpollEvent, 16)
	for {
		var n int
		err := raw.Read(func(fd uintptr) (done bool) {
			n, _ = unix.EpollWait(int(fd), events, 0)
			return n > 0
		})
		if err != nil {
			return
		}
		for _, e := range events[:n] {
			if e.Events&unix.EPOLLPRI != 0 { // not an end alone
				a.interrupt(e.Fd)
			}
		}
	}
}

func (a *alarm) interrupt(fd int32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c, ok := a.conns[fd]; ok {
		c.SetReadDeadline(time.Unix(1, 0))
	}
}

// add watches a connection until remove. One that can not be watched is
// relayed all the same.
func (a *alarm) add(c *net.TCPConn) (remove func()) {
	key := int32(-1)
	a.control(c, func(epoll, fd int) {
		key = int32(fd)
		a.mu.Lock()
		a.conns[key] = c
		a.mu.Unlock()
		unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLPRI | unix.EPOLLET, Fd: key})
	})
	return func() {
		a.mu.Lock()
		// Closed meanwhile, it has left its descriptor to another one.
		if a.conns[key] == c {
			delete(a.conns, key)
		}
		a.mu.Unlock()
		a.control(c, func(epoll, fd int) { unix.EpollCtl(epoll, unix.EPOLL_CTL_DEL, fd, nil) })
	}
}

// control calls f with both descriptors, if both are open.
func (a *alarm) control(c *net.TCPConn, f func(epoll, fd int)) {
	rawEpoll, err := a.epoll.SyscallConn()
	if err != nil {
		return
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		rawEpoll.Control(func(epoll uintptr) { f(int(epoll), int(fd)) })
	})
}

// copyAll copies one direction to its end: with splice(2), until an alarm, for
// only that sets a deadline.
func copyAll(dst, src *net.TCPConn) error {
	_, err := io.Copy(dst, src)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return copyUrgent(dst, src)
	}
	return err
}

// copyUrgent copies one direction without splice(2). An urgent byte is passed
// on as one, at its place.
func copyUrgent(dst, src *net.TCPConn) error {
	buf := make([]byte, 32<<10)
	for {
		src.SetReadDeadline(time.Time{}) // first: an alarm from here on interrupts the read again
		n, urgent, err := readPart(src, buf)
		if n > 0 {
			err = sendPart(dst, buf[:n], urgent)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

// keepUrgent leaves urgent bytes in the stream, where a read can not drop them.
func keepUrgent(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) {
		setErr = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_OOBINLINE, 1))
	})
	return errors.Join(err, setErr)
}

// readPart reads up to the next urgent byte, or that byte alone. The kernel may
// learn of one at any time, but never later than the byte itself comes: so only
// when the next byte is known to be there is the answer to "is it urgent" final.
func readPart(src *net.TCPConn, buf []byte) (n int, urgent bool, err error) {
	raw, err := src.SyscallConn()
	if err != nil {
		return 0, false, err
	}
	var readErr error
	err = raw.Read(func(fd uintptr) (done bool) {
		n, _, readErr = unix.Recvfrom(int(fd), buf[:1], unix.MSG_PEEK)
		if readErr != nil || n == 0 {
			return readErr != unix.EAGAIN
		}
		part := buf
		if urgent = atMark(int(fd)); urgent {
			part = buf[:1]
		}
		n, readErr = unix.Read(int(fd), part)
		return true
	})
	switch {
	case err != nil:
		return 0, false, err
	case readErr != nil:
		return 0, false, os.NewSyscallError("read", readErr)
	case n == 0:
		return 0, false, io.EOF
	}
	return n, urgent, nil
}

func atMark(fd int) bool {
	mark, err := unix.IoctlGetInt(fd, unix.SIOCATMARK) // fails for no connected socket
	return err == nil && mark != 0
}

// sendPart sends what readPart has read.
func sendPart(dst *net.TCPConn, part []byte, urgent bool) error {
	if urgent {
		return sendUrgent(dst, part[0])
	}
	_, err := dst.Write(part)
	return err
}

func sendUrgent(dst *net.TCPConn, b byte) error {
	raw, err := dst.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = raw.Write(func(fd uintptr) (done bool) {
		_, sendErr = unix.SendmsgN(int(fd), []byte{b}, nil, nil, unix.MSG_OOB|unix.MSG_NOSIGNAL)
		return sendErr != unix.EAGAIN
	})
	return errors.Join(err, sendErr)
}
