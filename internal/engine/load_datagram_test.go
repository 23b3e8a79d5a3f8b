//go:build linux

package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waybill-net/waybill"
	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/flow"
	relay "github.com/waybill-net/waybill/internal/proxy"
	"github.com/waybill-net/waybill/internal/testenv"
)

// TestDatagramsUnderLoad has clients that open sockets of UDP of all kinds and
// close them, and are killed, and proxies that are killed. Wrong answers there
// must be none, and at the end nothing is left.
func TestDatagramsUnderLoad(t *testing.T) {
	env, e := startUDPChain(t)
	p := udpChain(env, "a", "b")
	p.Filters[0].Context = []byte("context")
	apply(t, e, p)
	heard := hearFlows(t, e)
	proxies := map[string]*testenv.Server{"a": startPacketRelay(env, "a"), "b": startPacketRelay(env, "b")}

	start := time.Now()
	var clients, kills int
	for ; heard.redirected.Load() < int64(2**loadConnections); clients++ {
		client := roleCommand(env, "app", "packet-client", strconv.Itoa(clients), strconv.Itoa(clientFlows))
		var said lastWords
		client.Stdout, client.Stderr = &said, os.Stderr
		env.Inside(client.Start)
		ended := make(chan error, 1)
		go func() { ended <- client.Wait() }()
		if clients%3 == 2 { // in the middle
			if stillRunning(ended, time.Duration(rand.Int64N(int64(time.Second)))) {
				client.Process.Kill()
				<-ended
			}
		} else if err := <-ended; err != nil {
			t.Fatalf("client %d: %v", clients, err)
		}
		if clients%5 == 4 {
			name := string("ab"[kills%2])
			proxies[name].Kill()
			proxies[name] = startPacketRelay(env, name)
			kills++
		}
		if clients%20 == 0 {
			t.Logf("%6.0f s: %d redirects, %d clients, %d proxies killed; the last client: %s",
				time.Since(start).Seconds(), heard.redirected.Load(), clients+1, kills, said.line)
		}
	}
	c := counters(t, e)
	t.Logf("%d flows by %d clients, with %d proxies killed, in %.1f s: counters %v",
		heard.redirected.Load()/2, clients, kills, time.Since(start).Seconds(), c)
	for _, s := range proxies {
		s.Kill()
	}
	checkBooks(t, e)
	heard.check(t, counters(t, e))
}

const (
	clientFlows  = 2000
	clientAtOnce = 8
)

// lastWords keeps the last of what a program prints.
type lastWords struct{ line string }

func (w *lastWords) Write(p []byte) (int, error) {
	w.line = string(p)
	return len(p), nil
}

// heardFlows has what has begun and not ended, by its events. A flow whose proxy
// is another from some time on is told of again, and a proxy can open a second
// connection for a flow.
type heardFlows struct {
	redirected atomic.Int64

	mu     sync.Mutex
	open   map[hearing]told
	closed int
	orphan int // ends without a beginning
}

type hearing struct {
	flow flow.ID
	hop  int
}

type told struct{ begun, ended int }

func hearFlows(t *testing.T, e *engine.Engine) *heardFlows {
	t.Helper()
	events, err := e.Events()
	if err != nil {
		t.Fatal(err)
	}
	h := &heardFlows{open: make(map[hearing]told)}
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			event, err := events.Read()
			if err != nil {
				if !errors.Is(err, os.ErrClosed) {
					t.Error(err)
				}
				return
			}
			h.hear(event)
		}
	})
	t.Cleanup(func() { events.Close(); reading.Wait() })
	return h
}

func (h *heardFlows) hear(e flow.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	of := hearing{e.Flow, e.Hop}
	so := h.open[of]
	switch e.Kind {
	case flow.Redirected:
		h.redirected.Add(1)
		so.begun++
	case flow.Closed:
		h.closed++
		so.ended++
	default:
		return
	}
	switch {
	case so.ended > so.begun:
		h.orphan++
	case so.ended == so.begun:
		delete(h.open, of)
	default:
		h.open[of] = so
	}
}

// checkBooks: nothing is left, when the last flows have had their time.
func checkBooks(t *testing.T, e *engine.Engine) {
	t.Helper()
	var books map[string]int
	defer func() {
		if t.Failed() {
			t.Logf("the books: %v", books)
		}
	}()
	waitFor(t, "the books to be empty", func() (empty bool) {
		var err error
		if books, err = e.Books(); err != nil {
			t.Fatal(err)
		}
		empty = true
		for _, n := range books {
			empty = empty && n == 0
		}
		return empty
	})
}

// check: what began has ended, once, and nothing went wrong.
func (h *heardFlows) check(t *testing.T, c map[string]uint64) {
	t.Helper()
	for _, name := range []string{"lost", "looped", "blocked", "unlisted", "set_forged", "set_denied", "events_lost"} {
		if c[name] != 0 {
			t.Errorf("counter %s is %d", name, c[name])
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	t.Logf("%d redirects of which the kernel counted %d, %d ends", h.redirected.Load(), c["redirected"], h.closed)
	endless := 0
	for _, so := range h.open {
		if so.ended == 0 {
			endless++
		}
	}
	if endless > 0 || h.orphan > 0 || h.closed == 0 {
		t.Errorf("%d flows have begun and not ended, %d ends are of flows that had not begun", endless, h.orphan)
	}
}

func startPacketRelay(env *testenv.Env, name string) *testenv.Server {
	return env.StartCommand(roleCommand(env, name, "packet-relay", strconv.Itoa(7001+int(name[0]-'a'))))
}

// playPacketRelay is a proxy that keeps nothing for long.
func playPacketRelay(port string) error {
	ended := make(chan error, 2)
	for _, host := range []string{"127.0.0.1", "::1"} {
		l, err := waybill.ListenPacket(context.Background(), "udp", net.JoinHostPort(host, port))
		if err != nil {
			return err
		}
		l.IdleTimeout = 200 * time.Millisecond
		go func() { ended <- new(relay.Packets).Serve(context.Background(), l) }()
	}
	fmt.Println("ready")
	return <-ended
}

// packetClient opens one socket after the other.
type packetClient struct {
	left  atomic.Int64 // flows that are still to be opened
	asked sync.Map     // by question: all that were sent

	mu  sync.Mutex
	sum packetSummary
}

// question is what was sent from a port.
type question struct {
	port       int
	host, data string
}

// packetSummary is what it prints. Late are answers that were on their way
// when their connected socket was closed, and that the next with its port and
// destination got: UDP without proxies has them, too.
type packetSummary struct{ Answered, Lost, Late, Wrong int }

// playPacketClient fails if an answer is wrong. That one is lost is no error:
// proxies die.
func playPacketClient(seed, flows string) error {
	n, err := strconv.ParseUint(seed, 10, 64)
	if err != nil {
		return err
	}
	left, err := strconv.ParseInt(flows, 10, 64)
	if err != nil {
		return err
	}
	c := &packetClient{}
	c.left.Store(left)
	var working sync.WaitGroup
	for i := range clientAtOnce {
		working.Go(func() { c.work(rand.New(rand.NewPCG(n, uint64(i)))) })
	}
	working.Wait()
	fmt.Printf("%+v\n", c.sum)
	if c.sum.Wrong > 0 {
		return fmt.Errorf("%d wrong answers", c.sum.Wrong)
	}
	return nil
}

func (c *packetClient) work(r *rand.Rand) {
	hosts := []string{"192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"}
	for c.left.Load() > 0 {
		family := 2 * r.IntN(2)
		to := hosts[family : family+1+r.IntN(2)]
		waits := r.IntN(2) == 0
		var sum packetSummary
		if r.IntN(2) == 0 {
			to = to[:1]
			sum = c.useConnected(r, to[0], waits)
		} else {
			sum = c.useUnconnected(r, to, waits)
		}
		c.left.Add(-int64(len(to)))
		c.mu.Lock()
		c.sum = packetSummary{c.sum.Answered + sum.Answered, c.sum.Lost + sum.Lost, c.sum.Late + sum.Late, c.sum.Wrong + sum.Wrong}
		c.mu.Unlock()
	}
}

const answerTimeout = time.Second

// useConnected sends up to three datagrams on a connected socket, and closes
// it when they are answered, or without waiting.
func (c *packetClient) useConnected(r *rand.Rand, host string, waits bool) (sum packetSummary) {
	conn, err := net.Dial("udp", net.JoinHostPort(host, strconv.Itoa(originPort)))
	if err != nil {
		return packetSummary{Wrong: 1}
	}
	defer conn.Close()
	for range 1 + r.IntN(3) {
		data := strconv.FormatUint(r.Uint64(), 16)
		c.note(conn, host, data)
		conn.Write([]byte(data))
		if waits {
			conn.SetReadDeadline(time.Now().Add(answerTimeout))
			sum.add(c.readAnswer(conn.(*net.UDPConn), map[string]string{host: data}))
		}
	}
	return sum
}

// useUnconnected sends to all, and closes likewise.
func (c *packetClient) useUnconnected(r *rand.Rand, hosts []string, waits bool) (sum packetSummary) {
	conn, err := net.ListenUDP("udp", nil)
	if err != nil {
		return packetSummary{Wrong: 1}
	}
	defer conn.Close()
	sent := make(map[string]string)
	for _, host := range hosts {
		sent[host] = strconv.FormatUint(r.Uint64(), 16)
		c.note(conn, host, sent[host])
		conn.WriteToUDP([]byte(sent[host]), &net.UDPAddr{IP: net.ParseIP(host), Port: originPort})
	}
	conn.SetReadDeadline(time.Now().Add(answerTimeout))
	for range hosts {
		if waits {
			sum.add(c.readAnswer(conn, sent))
		}
	}
	return sum
}

func (s *packetSummary) add(err error) {
	switch {
	case err == nil:
		s.Answered++
	case errors.Is(err, errLateAnswer):
		s.Late++
	case errors.Is(err, errWrongAnswer):
		s.Wrong++
		fmt.Fprintln(os.Stderr, err)
	default:
		s.Lost++
	}
}

var (
	errWrongAnswer = errors.New("wrong answer")
	errLateAnswer  = errors.New("answer to an earlier question of this port")
)

type withLocalAddr interface{ LocalAddr() net.Addr }

func (c *packetClient) note(conn withLocalAddr, host, data string) {
	c.asked.Store(question{conn.LocalAddr().(*net.UDPAddr).Port, host, data}, nil)
}

// readAnswer reads one, which must come from whom it was asked of.
func (c *packetClient) readAnswer(conn *net.UDPConn, sent map[string]string) error {
	buf := make([]byte, 100)
	n, from, err := conn.ReadFromUDPAddrPort(buf)
	if err != nil {
		return err
	}
	host := from.Addr().Unmap().String()
	if want := host + " " + sent[host]; string(buf[:n]) != want || from.Port() != originPort {
		_, data, _ := strings.Cut(string(buf[:n]), " ")
		_, asked := c.asked.Load(question{conn.LocalAddr().(*net.UDPAddr).Port, host, data})
		if isConnected := conn.RemoteAddr() != nil; asked && isConnected && from.Port() == originPort {
			return errLateAnswer
		}
		return fmt.Errorf("%w: from %s %q, want %q", errWrongAnswer, from, buf[:n], want)
	}
	return nil
}
