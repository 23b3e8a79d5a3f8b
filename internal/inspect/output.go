package inspect

import (
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// maxWaiting bounds the bytes of lines that nobody has taken yet.
	maxWaiting = 1 << 20

	// longestFlush is for a reader that is there and slow. One that reads no more
	// must not keep the proxy from its end.
	longestFlush = time.Second
)

// output writes lines in a goroutine of its own: a pipe that is full must not
// stop the flows that the lines are about. What finds no room is counted, and
// the count stands where the lines are missing.
type output struct {
	to   io.Writer
	done chan struct{} // is closed when all is written

	mu      sync.Mutex
	changed sync.Cond
	waiting []byte
	lost    int // behind what waits
	closed  bool
}

func newOutput(to io.Writer) *output {
	o := &output{to: to, done: make(chan struct{})}
	o.changed.L = &o.mu
	go o.run()
	return o
}

// add takes a line, but for its end.
func (o *output) add(line string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.changed.Signal()
	if o.lost > 0 || len(o.waiting)+len(line) >= maxWaiting {
		o.lost++
		return
	}
	o.waiting = append(append(o.waiting, line...), '\n')
}

func (o *output) run() {
	defer close(o.done)
	for {
		lines := o.next()
		if lines == nil {
			return
		}
		o.to.Write(lines)
	}
}

// next waits for lines; nil: there will be no more.
func (o *output) next() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.waiting) == 0 && o.lost == 0 && !o.closed {
		o.changed.Wait()
	}
	lines := o.waiting
	if o.lost > 0 {
		lines = fmt.Appendf(lines, "%d lines lost\n", o.lost)
	}
	o.waiting, o.lost = nil, 0
	return lines
}

// close writes what waits.
func (o *output) close() {
	o.mu.Lock()
	o.closed = true
	o.changed.Signal()
	o.mu.Unlock()
	select {
	case <-o.done:
	case <-time.After(longestFlush):
	}
}
