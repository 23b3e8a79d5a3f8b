//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
)

// origin is the server at the end of the chain. It listens outside the scope,
// as a remote server does, and keeps book of the flows that reach it.
type origin struct {
	listeners []net.Listener
	open      atomic.Int64
	serving   sync.WaitGroup

	mu      sync.Mutex
	seen    []uint8 // by flow: how often it came
	book    originBook
	samples []string // of what was wrong, the first few
}

// originBook is what the origin has to say at the end.
type originBook struct {
	Flows      int `json:"flows"`
	Duplicates int `json:"duplicates"`
	Wrong      int `json:"wrong_destination"`
	Corrupt    int `json:"corrupt"`
	Cut        int `json:"cut_short"` // connections that ended in the middle of something
}

// The addresses and ports that clients choose from. A proxy that mixes up two
// connections sends one to the other's.
var (
	originAddrs = []netip.Addr{
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"),
		netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"),
	}
	originPorts = []uint16{8000, 8001, 8002, 8003}
)

// startOrigin must be called inside the network namespace.
func startOrigin() (*origin, error) {
	o := &origin{}
	cheap := net.ListenConfig{KeepAlive: -1}
	cheap.SetMultipathTCP(false)
	for _, port := range originPorts {
		l, err := cheap.Listen(context.Background(), "tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return nil, errors.Join(err, o.close())
		}
		o.listeners = append(o.listeners, l)
		o.serving.Go(func() { o.accept(l) })
	}
	return o, nil
}

func (o *origin) close() error {
	for _, l := range o.listeners {
		l.Close()
	}
	o.serving.Wait()
	return nil
}

func (o *origin) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		o.open.Add(1)
		go func() {
			defer o.open.Add(-1)
			defer c.Close()
			o.ended(o.serve(c.(*net.TCPConn)))
		}()
	}
}

// ended notes why a connection ended.
func (o *origin) ended(err error) {
	if err == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if errors.Is(err, errCorrupt) {
		o.book.Corrupt++
		o.sample(err.Error())
	} else {
		o.book.Cut++
	}
}

func (o *origin) sample(what string) {
	if len(o.samples) < 20 {
		o.samples = append(o.samples, what)
	}
}

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 16<<10) }}

// serve answers until the connection ends.
func (o *origin) serve(c *net.TCPConn) error {
	r := readers.Get().(*bufio.Reader)
	r.Reset(c)
	defer readers.Put(r)
	var (
		here = c.LocalAddr().(*net.TCPAddr).AddrPort()
		id   uint64
		buf  []byte
	)
	here = netip.AddrPortFrom(here.Addr().Unmap(), here.Port())
	for first := true; ; first = false {
		m, err := receive(r)
		if first && errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF // a proxy connected for a client that was gone
		}
		if err != nil {
			return err
		}
		if !first && m.ID != id {
			return fmt.Errorf("%w: flow %d goes on as flow %d", errCorrupt, id, m.ID)
		}
		id = m.ID
		answer := message{ID: m.ID, Round: m.Round, Addr: here, Size: m.Want, Verdict: o.judge(&m, here, first)}
		if buf, err = send(c, answer, buf); err != nil || m.End == byOrigin {
			return err
		}
		if m.End != goesOn {
			return atEnd(r)
		}
	}
}

// judge says what is wrong with a request, and enters it in the book.
func (o *origin) judge(m *message, here netip.AddrPort, first bool) verdict {
	o.mu.Lock()
	defer o.mu.Unlock()
	v := fine
	if m.Addr != here {
		v = wrongDestination
		o.book.Wrong++
		o.sample(fmt.Sprintf("flow %d dialled %s and came to %s", m.ID, m.Addr, here))
	}
	if !first {
		return v
	}
	if missing := int(m.ID) + 1 - len(o.seen); missing > 0 {
		o.seen = append(o.seen, make([]uint8, missing+1<<16)...)
	}
	if o.seen[m.ID]++; o.seen[m.ID] > 1 {
		o.book.Duplicates++
		o.sample(fmt.Sprintf("flow %d came %d times", m.ID, o.seen[m.ID]))
		return duplicate
	}
	o.book.Flows++
	return v
}

// atEnd makes sure that nothing follows.
func atEnd(r *bufio.Reader) error {
	switch b, err := r.ReadByte(); {
	case err == nil:
		return fmt.Errorf("%w: %#02x after the end", errCorrupt, b)
	case errors.Is(err, io.EOF):
		return nil
	default:
		return err
	}
}

func (o *origin) report() (originBook, []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.book, o.samples
}
