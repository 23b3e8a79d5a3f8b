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

// lostAfter ends the wait for an answer.
const lostAfter = 200 * time.Millisecond

// openDatagrams opens a socket of UDP, connected if there is a destination.
func openDatagrams(to netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	wait := unix.NsecToTimeval(lostAfter.Nanoseconds())
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait)
	if err == nil && to.IsValid() {
		err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("open socket to %v: %w", to, err)
	}
	return fd, nil
}

// flow keeps one socket for each destination, and one for none: the flow
// lasts, as those that matter do.
func (c *child) flow(to netip.AddrPort) (int, error) {
	if fd, ok := c.flows[to]; ok {
		return fd, nil
	}
	fd, err := openDatagrams(to)
	if err != nil {
		return -1, err
	}
	if c.flows == nil {
		c.flows = make(map[netip.AddrPort]int)
	}
	c.flows[to] = fd
	return fd, nil
}

// timeEchoes sends a datagram and waits for it to come back, n times. One that
// is lost is none of the samples.
func (c *child) timeEchoes(o order) (samples []float64, err error) {
	fd, err := c.flow(o.To[0])
	if err != nil {
		return nil, err
	}
	out, in := make([]byte, o.Size), make([]byte, longestDatagram)
	for i := range warmUp + o.N {
		c.echoes++
		binary.NativeEndian.PutUint64(out, c.echoes)
		began := now()
		errno := echoOnce(fd, out, in)
		took := now() - began
		switch {
		case errno == unix.EAGAIN:
		case errno != 0:
			return nil, fmt.Errorf("echo by %s: %w", o.To[0], errno)
		case i >= warmUp:
			samples = append(samples, nanoseconds(took))
		}
	}
	if len(samples) < o.N/2 {
		return nil, fmt.Errorf("echo by %s: %d of %d datagrams came back", o.To[0], len(samples), o.N)
	}
	return samples, nil
}

// echoOnce passes over answers to earlier datagrams.
func echoOnce(fd int, out, in []byte) unix.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), address(out), uintptr(len(out)), 0, 0, 0)
	for errno == 0 {
		errno = unix.EINTR // by Go's own signals
		for errno == unix.EINTR {
			_, _, errno = unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), address(in), uintptr(len(in)), 0, 0, 0)
		}
		if errno == 0 && [8]byte(in) == [8]byte(out) {
			return 0
		}
	}
	return errno
}

func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// mmsghdr is struct mmsghdr.
type mmsghdr struct {
	header unix.Msghdr
	length uint32
}

func newMessages(size int) []mmsghdr {
	messages := make([]mmsghdr, streamWindow)
	for i := range messages {
		v := &unix.Iovec{Base: unsafe.SliceData(make([]byte, size))}
		v.SetLen(size)
		messages[i].header.Iov = v
		messages[i].header.SetIovlen(1)
	}
	return messages
}

// timeStream keeps a window of datagrams on the way there and back. A sample
// is the time of one, taken of a window.
func (c *child) timeStream(o order) (samples []float64, err error) {
	fd, err := c.flow(o.To[0])
	if err != nil {
		return nil, err
	}
	out, in := newMessages(o.Size), newMessages(longestDatagram)
	defer drainAnswers(fd, in)
	room, answers, lost := streamWindow, 0, 0
	began := now()
	for len(samples) < warmUp/streamSamples+o.N {
		if room > 0 {
			n, errno := manyMessages(unix.SYS_SENDMMSG, fd, out[:room], 0)
			if errno != 0 {
				return nil, fmt.Errorf("stream to %s: %w", o.To[0], errno)
			}
			room -= n
		}
		n, errno := manyMessages(unix.SYS_RECVMMSG, fd, in, unix.MSG_WAITFORONE)
		switch errno {
		case 0:
		case unix.EAGAIN:
			lost += streamWindow - room
			room = streamWindow
			began, answers = now(), 0
			if lost > o.N*streamWindow {
				return nil, fmt.Errorf("stream to %s: %d datagrams were lost", o.To[0], lost)
			}
			continue
		default:
			return nil, fmt.Errorf("stream to %s: %w", o.To[0], errno)
		}
		room += n
		if answers += n; answers >= streamWindow*streamSamples {
			samples = append(samples, nanoseconds(now()-began)/float64(answers))
			began, answers = now(), 0
		}
	}
	return samples[warmUp/streamSamples:], nil
}

// drainAnswers waits until no more come, so that the next stream begins with
// none on their way.
func drainAnswers(fd int, in []mmsghdr) {
	for range lostAfter / time.Millisecond {
		time.Sleep(time.Millisecond)
		if n, _ := manyMessages(unix.SYS_RECVMMSG, fd, in, unix.MSG_DONTWAIT); n == 0 {
			return
		}
	}
}

// streamSamples is how many windows make a sample.
const streamSamples = 4

func manyMessages(call uintptr, fd int, messages []mmsghdr, flags uintptr) (n int, errno unix.Errno) {
	errno = unix.EINTR // by Go's own signals
	for errno == unix.EINTR {
		var done uintptr
		done, _, errno = unix.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(&messages[0])), uintptr(len(messages)), flags, 0, 0)
		n = int(done)
	}
	if errno != 0 {
		return 0, errno
	}
	return n, 0
}

// timeSends sends from one unconnected socket to where nobody wakes up.
func (c *child) timeSends(o order) ([]float64, error) {
	fd, err := c.flow(netip.AddrPort{})
	if err != nil {
		return nil, err
	}
	addr := sockaddr(o.To[0])
	out := make([]byte, o.Size)
	return timeChunks(o.N, func() (time.Duration, error) {
		var failed unix.Errno
		began := now()
		for range chunk {
			_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), address(out), uintptr(len(out)), 0,
				uintptr(unsafe.Pointer(&addr)), unsafe.Sizeof(addr))
			if errno != 0 {
				failed = errno
			}
		}
		took := now() - began
		if failed != 0 {
			return 0, fmt.Errorf("send to %s: %w", o.To[0], failed)
		}
		return took, nil
	})
}
