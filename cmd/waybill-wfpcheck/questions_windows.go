package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/waybill-net/waybill/internal/wfp"
)

var queries = []struct {
	name string
	code wfp.Code
}{{"records", wfp.QueryRecords}, {"context", wfp.QueryContext}}

// without asks what needs no redirector.
func (c *check) without(l *net.TCPListener) {
	app, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		c.say("b", "connect to the listener", err)
		return
	}
	defer app.Close()
	straight, err := acceptSoon(l)
	if err != nil {
		c.say("b", "accept", err)
		return
	}
	defer straight.Close()
	fresh, err := newSocket(windows.SOCK_STREAM)
	if err != nil {
		c.say("b", "socket", err)
		return
	}
	defer windows.Closesocket(fresh)
	for _, q := range queries {
		on(straight, func(s windows.Handle) {
			c.say("b", q.name+" of an accepted socket, not redirected", ask(s, q.code, nil, 8192))
			c.say("b", "the same, overlapped", askOverlapped(s, q.code, nil, 8192))
			c.say("b", "the same, without a buffer", ask(s, q.code, nil, -1))
		})
		on(l, func(s windows.Handle) { c.say("b", q.name+" of a listener", ask(s, q.code, nil, 8192)) })
		c.say("b", q.name+" of a socket that is not connected", ask(fresh, q.code, nil, 8192))
	}
	c.say("c", "SET of garbage", ask(fresh, wfp.SetRecords, []byte("these are no records at all"), -1))
	c.say("c", "SET of nothing", ask(fresh, wfp.SetRecords, nil, -1))
}

func newSocket(kind int) (windows.Handle, error) {
	return windows.WSASocket(windows.AF_INET, int32(kind), 0, nil, 0, windows.WSA_FLAG_OVERLAPPED)
}

// with asks about a connection that is redirected.
func (c *check) with(l *net.TCPListener) error {
	app, err := net.Dial("tcp", c.origin)
	if err != nil {
		return fmt.Errorf("connect as an application: %w", err)
	}
	defer app.Close()
	accepted, err := acceptSoon(l)
	if err != nil {
		return fmt.Errorf("accept the redirected connection: %w: does the redirector send %s to %s?", err, c.origin, c.listen)
	}
	defer accepted.Close()
	c.say("f", "getpeername of the application's socket", app.RemoteAddr())
	var records []byte
	on(accepted, func(s windows.Handle) {
		records = c.sizes(s)
		c.destination(s)
		c.duplicate(s)
	})
	if len(records) == 0 {
		return errors.New("query records: there are none: nothing more can be asked")
	}
	c.set(records)
	c.next(l, records)
	if err := c.kept(records); err != nil {
		return err
	}
	c.stopped(accepted)
	c.say("g", "does AUTH_CONNECT run twice without SET", "not to be seen from here: auditpol /set /subcategory:{0CCE9226-69AE-11D9-BED3-505054503030}, then event 5156")
	c.say("h", "state when one handle has redirected twice", "known to callouts alone")
	return nil
}

// sizes asks for each answer with buffers of all kinds of sizes.
func (c *check) sizes(s windows.Handle) (records []byte) {
	for _, q := range queries {
		whole := ask(s, q.code, nil, 64<<10)
		c.say("a, e", q.name+", room 65536", whole)
		c.say("a", q.name+", room 65536, overlapped", askOverlapped(s, q.code, nil, 64<<10))
		for _, room := range []int{-1, 0, 1, 3, 4, int(whole.returned) - 1, int(whole.returned)} {
			what := fmt.Sprintf("%s, room %d", q.name, room)
			if room < 0 {
				what = q.name + ", no buffer"
			}
			c.say("a", what, ask(s, q.code, nil, room))
		}
		c.say("a", q.name+" once more", ask(s, q.code, nil, 64<<10))
		if q.code == wfp.QueryRecords && whole.err == nil {
			records = whole.out[:whole.returned]
		}
	}
	return records
}

func (c *check) destination(s windows.Handle) {
	context := ask(s, wfp.QueryContext, nil, 64<<10)
	if dst, ok := wfp.ContextDestination(context.out[:context.returned]); context.err == nil && ok {
		c.say("—", "the context has the form of Microsoft's sample", dst)
	}
	var b [wfp.SizeofStorage]byte
	size := int32(len(b))
	err := windows.Getsockopt(s, wfp.LevelSocket, wfp.OriginalDestination, (*byte)(unsafe.Pointer(&b)), &size)
	dst, _ := wfp.Sockaddr(b[:size])
	c.say("—", "SO_ORIGINAL_DST", fmt.Sprint(dst, ", ", answer{err: err, returned: uint32(size)}))
	c.say("—", "endpoint handle", ask(s, wfp.QueryEndpointHandle, nil, 8))
}

// duplicate asks a duplicate of the socket in this process.
func (c *check) duplicate(s windows.Handle) {
	var info windows.WSAProtocolInfo
	if err := windows.WSADuplicateSocket(s, windows.GetCurrentProcessId(), &info); err != nil {
		c.say("i", "duplicate the socket", err)
		return
	}
	d, err := windows.WSASocket(-1, -1, -1, &info, 0, windows.WSA_FLAG_OVERLAPPED)
	if err != nil {
		c.say("i", "open the duplicate", err)
		return
	}
	defer windows.Closesocket(d)
	c.say("i", "records of a duplicated socket", ask(d, wfp.QueryRecords, nil, 64<<10))
}

// set sets the records on all kinds of sockets.
func (c *check) set(records []byte) {
	for _, kind := range []struct {
		name string
		kind int
	}{{"TCP", windows.SOCK_STREAM}, {"UDP", windows.SOCK_DGRAM}} {
		s, err := newSocket(kind.kind)
		if err != nil {
			c.say("c", kind.name+" socket", err)
			continue
		}
		c.say("c, d", "SET on "+kind.name, ask(s, wfp.SetRecords, records, -1))
		c.say("c", "SET on "+kind.name+" twice", ask(s, wfp.SetRecords, records, -1))
		c.say("c", "SET on "+kind.name+", overlapped", askOverlapped(s, wfp.SetRecords, records, -1))
		if err := windows.Bind(s, &windows.SockaddrInet4{}); err == nil {
			c.say("c", "SET on "+kind.name+" after bind", ask(s, wfp.SetRecords, records, -1))
		}
		windows.Closesocket(s)
	}
	altered := bytes.Clone(records)
	altered[len(altered)/2] ^= 1
	s, err := newSocket(windows.SOCK_STREAM)
	if err != nil {
		return
	}
	defer windows.Closesocket(s)
	c.say("c", "SET of altered records", ask(s, wfp.SetRecords, altered, -1))
	c.say("c", "SET of half of them", ask(s, wfp.SetRecords, records[:len(records)/2], -1))
}

// next connects as a proxy does, with and without the records.
func (c *check) next(l *net.TCPListener, records []byte) {
	for _, with := range []bool{true, false} {
		what := map[bool]string{true: "the next connect, with records", false: "the next connect, without"}[with]
		d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
			if !with {
				return nil
			}
			return raw.Control(func(s uintptr) { ask(windows.Handle(s), wfp.SetRecords, records, -1) })
		}}
		up, err := d.Dial("tcp", c.origin)
		if err != nil {
			c.say("c, e", what, err)
			continue
		}
		if with {
			on(up.(*net.TCPConn), func(s windows.Handle) {
				c.say("c", "SET after connect", ask(s, wfp.SetRecords, records, -1))
			})
		}
		c.say("c, e", what, where(l))
		up.Close()
	}
}

// where says whether a connection has come back.
func where(l *net.TCPListener) string {
	back, err := acceptSoon(l)
	if err != nil {
		return "it did not come back"
	}
	defer back.Close()
	s := "it came back"
	on(back, func(h windows.Handle) { s += ", records: " + ask(h, wfp.QueryRecords, nil, 64<<10).String() })
	return s
}

// kept tries the records of an earlier run, and keeps these.
func (c *check) kept(records []byte) error {
	if c.keep == "" {
		return nil
	}
	old, err := os.ReadFile(c.keep)
	switch {
	case err == nil:
		s, err := newSocket(windows.SOCK_STREAM)
		if err != nil {
			return err
		}
		defer windows.Closesocket(s)
		c.say("c", "SET of the records in "+c.keep, ask(s, wfp.SetRecords, old, -1))
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return os.WriteFile(c.keep, records, 0o600)
}

// stopped asks again when the redirector has been stopped.
func (c *check) stopped(accepted *net.TCPConn) {
	if !c.pause {
		return
	}
	fmt.Fprintln(os.Stderr, "Stop the redirector now, and press Enter.")
	bufio.NewReader(os.Stdin).ReadString('\n')
	on(accepted, func(s windows.Handle) {
		c.say("j", "records after the redirector was stopped", ask(s, wfp.QueryRecords, nil, 64<<10))
	})
}
