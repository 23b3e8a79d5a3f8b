//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// worker runs one flow after the other.
type worker struct {
	r     *bufio.Reader
	buf   []byte
	local string // address of the last connection
}

// The load must cost little beside what it measures: keep-alive probes are
// four system calls for each connection, a time limit a goroutine. The kernel
// has one of its own: see sysctls.
var dialer = net.Dialer{KeepAlive: -1}

// run opens a flow and takes it to its end, and returns the round in which it
// failed. When stop is closed, the next round is the last.
func (w *worker) run(f *flow, stop <-chan struct{}) (round int, err error) {
	w.local = ""
	nc, err := dialer.Dial("tcp", f.Dst.String())
	if err != nil {
		return -1, err
	}
	c := nc.(*net.TCPConn)
	defer c.Close()
	w.local = c.LocalAddr().String()
	w.r.Reset(c)
	for i, r := range f.Rounds {
		if r.Pause > 0 {
			if err := w.pause(c, r.Pause, stop); err != nil {
				return i, fmt.Errorf("while it was idle: %w", err)
			}
		}
		m := message{ID: f.ID, Round: uint32(i), Addr: f.Dst, Size: r.Size, Want: r.Want}
		last := i == len(f.Rounds)-1 || i > 0 && isClosed(stop)
		if last {
			m.End = f.End
		}
		if err := w.ask(c, m); err != nil || last {
			return i, err
		}
	}
	return 0, nil
}

// ask takes a connection through one round.
func (w *worker) ask(c *net.TCPConn, m message) (err error) {
	c.SetDeadline(time.Now().Add(deadline))
	if w.buf, err = send(c, m, w.buf); err != nil {
		return err
	}
	if m.End == halfClosed {
		if err := c.CloseWrite(); err != nil {
			return err
		}
	}
	answer, err := receive(w.r)
	switch {
	case err != nil:
		return err
	case answer.Verdict == duplicate:
		return errDuplicate
	case answer.Verdict == wrongDestination || answer.Addr != m.Addr:
		return fmt.Errorf("%w: %s", errWrong, answer.Addr)
	case answer.ID != m.ID || answer.Round != m.Round || answer.Size != m.Want:
		return fmt.Errorf("%w: the answer is round %d of flow %d, with %d bytes", errCorrupt, answer.Round, answer.ID, answer.Size)
	case m.End == byOrigin || m.End == halfClosed:
		return atEnd(w.r)
	}
	return nil
}

// pause waits and listens meanwhile: a reset is to be noticed when it comes.
func (w *worker) pause(c *net.TCPConn, d time.Duration, stop <-chan struct{}) error {
	if isClosed(stop) {
		return nil
	}
	c.SetReadDeadline(time.Now().Add(d))
	switch _, err := w.r.Peek(1); {
	case err == nil:
		return fmt.Errorf("%w: more than was asked for", errCorrupt)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	default:
		return err
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
