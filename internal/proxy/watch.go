package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// watch relays a connection and reports its event when the first bytes have
// been forwarded, whoever sent them.
type watch struct {
	mu     sync.Mutex
	event  Event
	read   time.Time   // when the first bytes had come
	report func(Event) // nil: it has been called
}

func (w *watch) relay(upstream *net.TCPConn) {
	client := w.event.Conn.TCPConn
	var back sync.WaitGroup
	back.Go(func() { copyRest(client, upstream, w.passFirst(client, upstream, func([]byte) {})) })
	copyRest(upstream, client, w.passFirst(upstream, client, w.keep))
	back.Wait()
}

// passFirst forwards the first bytes of one direction. They are kept before
// they are on their way: the answer to them may be reported before this
// goroutine goes on.
func (w *watch) passFirst(dst, src *net.TCPConn, keep func(first []byte)) error {
	first := make([]byte, firstBytes)
	n, urgent, err := readPart(src, first)
	keep(first[:n])
	if n > 0 {
		err = sendPart(dst, first[:n], urgent)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil // copyRest finds it again
	}
	w.done(err)
	return err
}

func (w *watch) keep(first []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.event.First, w.read = first, time.Now()
}

// done reports the event, once.
func (w *watch) done(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.report == nil {
		return
	}
	w.event.Err = err
	if len(w.event.First) > 0 {
		w.event.Added += time.Since(w.read)
	}
	w.report(w.event)
	w.report = nil
}
