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

// copyUrgent copies one direction without splice(2). An urgent byte is passed
// on as one, at its place.
func copyUrgent(dst, src *net.TCPConn) error {
	buf := make([]byte, 32<<10)
	for {
		src.SetReadDeadline(time.Time{}) // first: what is urgent from here on interrupts the read again
		if err := passUrgent(dst, src); err != nil {
			return err
		}
		n, err := src.Read(buf) // to the next urgent byte, which it leaves out
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

// passUrgent passes an urgent byte on if it is the next one.
func passUrgent(dst, src *net.TCPConn) error {
	from, err := src.SyscallConn()
	if err != nil {
		return err
	}
	to, err := dst.SyscallConn()
	if err != nil {
		return err
	}
	var b [1]byte
	urgent := false
	err = from.Control(func(fd uintptr) {
		if next, err := unix.IoctlGetInt(int(fd), unix.SIOCATMARK); err != nil || next == 0 {
			return
		}
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_OOB)
		urgent = n == 1 && err == nil // or it is still on its way, or was passed on before
	})
	if err != nil || !urgent {
		return err
	}
	var sendErr error
	err = to.Write(func(fd uintptr) (done bool) {
		_, sendErr = unix.SendmsgN(int(fd), b[:], nil, nil, unix.MSG_OOB|unix.MSG_NOSIGNAL)
		return sendErr != unix.EAGAIN
	})
	return errors.Join(err, sendErr)
}
