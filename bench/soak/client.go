//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// deadline is how long a client waits for anything before it says that the
// connection hangs.
const deadline = 15 * time.Second

// clientOrder is what a client process is told to do.
type clientOrder struct {
	Seed        uint64
	First       uint64 // number of a flow
	Connections int    // short ones; 0: until it is told to stop
	AtOnce      int
	Long        int
}

// clientNews is a line that a client process prints.
type clientNews struct {
	Failure *failure `json:",omitempty"`
	Tally   *tally   `json:",omitempty"`
	Done    bool     `json:",omitempty"` // all has ended; the tally is the last
}

// tally counts flows by kind.
type tally struct {
	Tried   map[kind]int
	Arrived map[kind]int
	Next    uint64        // number of a flow that was not tried yet
	Slowest time.Duration // of the short ones that arrived
}

// failure is a flow that did not arrive.
type failure struct {
	ID         uint64         `json:"flow"`
	Kind       kind           `json:"kind"`
	What       string         `json:"what"`
	Error      string         `json:"error"`
	Dst        netip.AddrPort `json:"dst"`
	Local      string         `json:"local,omitempty"`
	Round      int            `json:"round"` // that failed; -1: connect()
	Start, End time.Time
}

// What can become of a flow that does not arrive.
const (
	wasRefused   = "refused"
	wasReset     = "reset"
	wasEnded     = "ended" // in an orderly way, before its time
	wasHung      = "hung"
	wasCorrupt   = "corrupt"
	wasWrong     = "wrong destination"
	wasDuplicate = "duplicate"
	wasOther     = "other"
)

// client opens flows. It is a process of its own, in the cgroup of the
// applications.
type client struct {
	order clientOrder
	stop  chan struct{} // closed when no more are to be begun
	next  atomic.Uint64
	left  atomic.Int64 // short ones that are still to be tried
	slow  atomic.Int64 // short ones that take longer than patience

	shorts sync.WaitGroup

	mu    sync.Mutex
	tally tally
	out   *json.Encoder
}

const (
	tallyEvery  = 250 * time.Millisecond
	failureWait = 10 * time.Millisecond
	patience    = time.Second
	maxSlow     = 8 // times those at once
)

// playClient reads its order from in, works until in ends or it is done, and
// prints its news.
func playClient(in io.Reader, out io.Writer) error {
	orders := json.NewDecoder(in)
	c := &client{
		stop: make(chan struct{}), out: json.NewEncoder(out),
		tally: tally{Tried: map[kind]int{}, Arrived: map[kind]int{}},
	}
	if err := orders.Decode(&c.order); err != nil {
		return fmt.Errorf("read order: %w", err)
	}
	c.next.Store(c.order.First)
	c.left.Store(int64(c.order.Connections))
	go func() {
		orders.Decode(new(struct{})) // until the end of input
		close(c.stop)
	}()
	ctx, cancel := context.WithCancel(context.Background())
	var tallying sync.WaitGroup
	tallying.Go(func() { c.tellTally(ctx) })
	c.work()
	cancel()
	tallying.Wait()
	return c.say(clientNews{Tally: &c.tally, Done: true})
}

// work ends when all short flows have been tried, or there is to be an end.
func (c *client) work() {
	ended := make(chan struct{})
	for range c.order.AtOnce {
		c.shorts.Go(c.loopShort)
	}
	var longs sync.WaitGroup
	for range c.order.Long {
		longs.Go(func() { c.loopLong(ended) })
	}
	c.shorts.Wait()
	close(ended)
	longs.Wait()
}

// loopShort opens one flow after the other. When one takes long, another loop
// goes on in its place: people do not stop working because somebody's
// connection hangs.
func (c *client) loopShort() {
	w := worker{r: bufio.NewReaderSize(nil, 16<<10)}
	for !isClosed(c.stop) {
		if c.order.Connections > 0 && c.left.Add(-1) < 0 {
			return
		}
		replaced := make(chan bool, 1)
		timer := time.AfterFunc(patience, func() {
			enough := c.slow.Add(1) > int64(maxSlow*c.order.AtOnce)
			if !enough {
				c.shorts.Go(c.loopShort)
			}
			replaced <- !enough
		})
		c.try(&w, short, c.stop)
		if timer.Stop() {
			continue
		}
		c.slow.Add(-1)
		if <-replaced {
			return
		}
	}
}

func (c *client) loopLong(ended <-chan struct{}) {
	w := worker{r: bufio.NewReaderSize(nil, 16<<10)}
	for !isClosed(ended) {
		c.try(&w, long, ended)
	}
}

func (c *client) try(w *worker, k kind, stop <-chan struct{}) {
	f := drawFlow(c.order.Seed, c.next.Add(1)-1, k)
	c.mu.Lock()
	c.tally.Tried[f.Kind]++
	c.mu.Unlock()
	start := time.Now()
	at, err := w.run(&f, stop)
	end := time.Now()
	if err != nil {
		defer time.Sleep(failureWait) // where everything fails, not a million times
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.tally.Arrived[f.Kind]++
		if f.Kind == short {
			c.tally.Slowest = max(c.tally.Slowest, end.Sub(start))
		}
		return
	}
	c.out.Encode(clientNews{Failure: &failure{
		ID: f.ID, Kind: f.Kind, What: what(err), Error: err.Error(), Dst: f.Dst, Local: w.local, Round: at, Start: start, End: end,
	}})
}

func (c *client) say(n clientNews) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	n.Tally.Next = c.next.Load()
	return c.out.Encode(n)
}

func (c *client) tellTally(ctx context.Context) {
	tick := time.NewTicker(tallyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.say(clientNews{Tally: &c.tally})
		}
	}
}

var (
	errWrong     = errors.New("it came to another destination")
	errDuplicate = errors.New("it came a second time")
)

func what(err error) string {
	switch {
	case errors.Is(err, errCorrupt):
		return wasCorrupt
	case errors.Is(err, errWrong):
		return wasWrong
	case errors.Is(err, errDuplicate):
		return wasDuplicate
	case errors.Is(err, os.ErrDeadlineExceeded):
		return wasHung
	case errors.Is(err, syscall.ECONNREFUSED):
		return wasRefused
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return wasEnded
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, syscall.ENOTCONN): // by shutdown(), when a reset has come already
		return wasReset
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return wasHung
	}
	return wasOther
}
