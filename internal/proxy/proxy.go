// Package proxy is a transparent proxy: it accepts a redirected connection,
// looks at the first bytes, decides, opens its own connection with the same
// records, and relays. Of waybill it uses the public library alone.
package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/waybill-net/waybill"
)

// Verdict on a connection.
type Verdict string

const (
	Pass  Verdict = "pass"
	Block Verdict = "block" // the client's connection is reset
)

// Event is what became of one accepted connection. It is reported when the
// first bytes have been forwarded, those of whichever side spoke first, or
// when that has failed.
type Event struct {
	Conn    *waybill.Conn
	State   waybill.State
	Hops    int
	First   []byte        // the first bytes that the client sent
	Verdict Verdict       // empty if there was none
	Start   time.Time     // when the connection was accepted
	Added   time.Duration // what this proxy added to their way: to inspect, to dial, to write
	Err     error
}

// Proxy is ready to use as its zero value: it passes everything.
type Proxy struct {
	// Inspect decides about a connection by its first bytes. It may be called
	// from several goroutines. first is empty if the client waits for the
	// server to speak, which costs such a connection 200 ms: without Inspect
	// nobody waits.
	Inspect func(c *waybill.Conn, first []byte) Verdict

	// Take may take a connection over. It returns false at once, and has done
	// nothing with the connection, or true when the connection has come to its end.
	// Nothing else is done about one that it takes, and Report does not hear of it.
	Take func(context.Context, *waybill.Conn) bool

	// Report hears of every connection.
	Report func(Event)

	// MaxConns bounds the connections open at once; more are closed as they
	// come. 0: no bound. Refused hears once a second how often that was.
	MaxConns int
	Refused  func(n int)

	Dialer waybill.Dialer
}

const (
	firstBytes = 4096
	// How long a client may be silent before the server is let speak first.
	firstBytesWait = 200 * time.Millisecond
	acceptRetry    = 50 * time.Millisecond
)

// Serve accepts connections until ctx ends and returns when all of them are
// closed. It closes l.
func (p *Proxy) Serve(ctx context.Context, l *waybill.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	urgent, err := newAlarm()
	if err != nil {
		return err
	}
	defer urgent.close()
	go urgent.run()
	conns := newLimit(p.MaxConns, p.Refused)
	defer conns.close()
	var open sync.WaitGroup
	defer open.Wait()
	for {
		c, err := l.AcceptConn()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) || errors.Is(err, waybill.ErrNotSupported) {
			return err
		}
		if err != nil {
			// Usually a lack of descriptors: only time brings some back.
			if !sleep(ctx, acceptRetry) {
				return nil
			}
			continue
		}
		if !conns.take() {
			c.Close()
			continue
		}
		open.Go(func() {
			defer conns.give()
			p.handle(ctx, c, urgent)
		})
	}
}

// sleep reports whether it has slept to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (p *Proxy) handle(ctx context.Context, c *waybill.Conn, urgent *alarm) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	// Should this process die, the kernel closes its sockets: a reset then tells
	// both ends that something is missing, where an orderly end would not.
	c.SetLinger(0)

	if p.Take != nil && p.Take(ctx, c) {
		return
	}
	e := Event{Conn: c, Start: time.Now()}
	if e.Err = keepUrgent(c.TCPConn); e.Err != nil {
		p.report(e)
		return
	}
	upstream := p.forward(ctx, &e)
	if upstream == nil {
		p.report(e)
		return // a reset says "refused" to the client; an orderly end would look like an empty answer
	}
	defer upstream.Close()
	upstream.SetLinger(0)
	keepUrgent(upstream) // can not fail where the client's has not
	defer urgent.add(c.TCPConn)()
	defer urgent.add(upstream)()
	if p.Inspect != nil || p.Report == nil {
		p.report(e)
		relay(c.TCPConn, upstream)
	} else {
		w := &watch{event: e, report: p.Report}
		w.relay(upstream)
	}
	endInOrder(c.TCPConn, upstream)
}

func (p *Proxy) report(e Event) {
	if p.Report != nil {
		p.Report(e)
	}
}

// forward takes a connection to the point where relaying can begin and fills
// in the event. It returns nil if the connection goes no further.
//
// Who inspects must have the first bytes before anything reaches the server,
// so a client that waits for the server is kept waiting. Who does not dials at
// once: then the server's greeting, its reset or its refusal comes as soon as
// without the proxy.
func (p *Proxy) forward(ctx context.Context, e *Event) *net.TCPConn {
	e.State, e.Hops, e.Err = waybill.QueryState(e.Conn)
	if e.Err != nil && !errors.Is(e.Err, waybill.ErrNotSupported) { // Windows tells its kernel alone
		return nil
	}
	e.Err = nil
	begin := time.Now()
	if p.Inspect != nil {
		if e.First, e.Err = readFirst(e.Conn.TCPConn); e.Err != nil {
			return nil
		}
		begin = time.Now()
		if e.Verdict = p.Inspect(e.Conn, e.First); e.Verdict == Block {
			return nil
		}
	}
	e.Verdict = Pass
	d := p.dialerFor(e.Conn)
	upstream, err := d.DialOriginal(ctx, e.Conn)
	if err == nil && len(e.First) > 0 {
		if _, err = upstream.Write(e.First); err != nil {
			upstream.Close()
		}
	}
	if err != nil {
		e.Err = err
		return nil
	}
	e.Added = time.Since(begin)
	return upstream
}

func readFirst(c *net.TCPConn) ([]byte, error) {
	buf := make([]byte, firstBytes)
	c.SetReadDeadline(time.Now().Add(firstBytesWait))
	defer c.SetReadDeadline(time.Time{})
	n, err := c.Read(buf)
	if n > 0 || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF) {
		err = nil // a client that sends nothing, or has sent its end already, may still want an answer
	}
	return buf[:n], err
}
