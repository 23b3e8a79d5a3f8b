//go:build linux

package engine_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-net/waybill"
	"github.com/waybill-net/waybill/internal/proxy"
	"github.com/waybill-net/waybill/internal/testenv"
)

// The test binary plays other roles in processes of their own, because a
// socket belongs to the cgroup of the process that creates it.
const roleVar = "WAYBILL_TEST_ROLE"

func TestMain(m *testing.M) {
	var err error
	switch role := os.Getenv(roleVar); role {
	case "":
		os.Exit(m.Run())
	case "proxy":
		err = playProxy(os.Args[1:])
	case "client":
		err = playClient(os.Args[1], os.Args[2], os.Args[3])
	case "attempts":
		err = playAttempts(os.Args[1:])
	case "datagrams":
		err = playDatagrams(os.Args[1:])
	case "unaware":
		err = playUnaware(os.Args[1:])
	case "open":
		err = playOpen(os.Args[1])
	case "cover":
		err = playCover(os.Args[1], os.Args[2])
	case "mutate":
		err = playMutate(os.Args[1:])
	case "packet-relay":
		err = playPacketRelay(os.Args[1])
	case "packet-client":
		err = playPacketClient(os.Args[1], os.Args[2])
	case "go-listener":
		err = playGoListener(os.Args[1])
	default:
		err = fmt.Errorf("no role %q", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func roleCommand(env *testenv.Env, cgroup, role string, args ...string) *exec.Cmd {
	cmd := env.Command(cgroup, "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), roleVar+"="+role)
	return cmd
}

// proxySummary is what the role "proxy" prints when it is told to stop.
type proxySummary struct {
	Accepted, Twice, NotRedirected, Failed int
}

// playProxy relays what it accepts on the given addresses, until SIGTERM. It
// remembers every flow that it has seen.
func playProxy(addresses []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var (
		mu    sync.Mutex
		sum   proxySummary
		flows = make(map[uint64]bool)
	)
	p := proxy.Proxy{Report: func(e proxy.Event) {
		mu.Lock()
		defer mu.Unlock()
		sum.Accepted++
		switch flow := e.Conn.Origin().FlowID; {
		case !e.Conn.Redirected():
			sum.NotRedirected++
		case flows[flow]:
			sum.Twice++
		default:
			flows[flow] = true
		}
		if e.Err != nil {
			sum.Failed++
		}
	}}
	var serving sync.WaitGroup
	for _, address := range addresses {
		l, err := waybill.Listen(ctx, "tcp", address)
		if err != nil {
			return err
		}
		serving.Go(func() { p.Serve(ctx, l) })
	}
	fmt.Println("ready")
	serving.Wait()
	return json.NewEncoder(os.Stdout).Encode(sum)
}

// playGoListener listens as Go programs do and tells each client where it was
// going.
func playGoListener(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		dst, err := waybill.OriginalDestination(c.(*net.TCPConn))
		if err != nil {
			fmt.Fprint(c, err)
		} else {
			fmt.Fprint(c, dst)
		}
		c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, c)
		c.Close()
	}
}

// clientSummary is what the role "client" prints.
type clientSummary struct {
	Arrived int
	Refused int // connect() failed with ECONNREFUSED: the proxy died between our check and its answer
	Reset   int // the connection ended before the answer: it was in the hands of a proxy that died
	Hung    int // no end within the time limit
	Other   int
	Errors  []string  // the first few of Other
	Failed  []failure // connections that were refused or reset
}

type failure struct {
	Start, End time.Time
	Err        string
}

func (s clientSummary) String() string {
	return fmt.Sprintf("%d arrived, %d refused, %d reset, %d hung, %d other %q", s.Arrived, s.Refused, s.Reset, s.Hung, s.Other, s.Errors)
}

const clientTimeout = 10 * time.Second

// playClient opens n connections, some at once, each with a number of its own
// that the origin must send back.
func playClient(address, count, concurrency string) error {
	n, _ := strconv.Atoi(count)
	workers, _ := strconv.Atoi(concurrency)
	var (
		sum  clientSummary
		mu   sync.Mutex
		next atomic.Int64
		all  sync.WaitGroup
	)
	for range workers {
		all.Go(func() {
			for id := next.Add(1); id <= int64(n); id = next.Add(1) {
				start := time.Now()
				err := exchange(address, uint64(id))
				mu.Lock()
				sum.add(start, err)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return json.NewEncoder(os.Stdout).Encode(sum)
}

func (s *clientSummary) add(start time.Time, err error) {
	var timeout net.Error
	switch {
	case err == nil:
		s.Arrived++
	case errors.Is(err, syscall.ECONNREFUSED):
		s.Refused++
		s.Failed = append(s.Failed, failure{start, time.Now(), err.Error()})
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.EPIPE):
		s.Reset++
		s.Failed = append(s.Failed, failure{start, time.Now(), err.Error()})
	case errors.As(err, &timeout) && timeout.Timeout():
		s.Hung++
	default:
		s.Other++
		if len(s.Errors) < 10 {
			s.Errors = append(s.Errors, err.Error())
		}
	}
}

func exchange(address string, id uint64) error {
	c, err := net.DialTimeout("tcp", address, clientTimeout)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(clientTimeout))
	var out, in [8]byte
	binary.BigEndian.PutUint64(out[:], id)
	if _, err := c.Write(out[:]); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, in[:]); err != nil {
		return err
	}
	if in != out {
		return fmt.Errorf("sent %x, got back %x", out, in)
	}
	return nil
}

// echoOrigin sends back the number that each connection brings and counts how
// often each one came.
type echoOrigin struct {
	mu   sync.Mutex
	seen map[uint64]int
}

func startEchoOrigin(env *testenv.Env) *echoOrigin {
	o := &echoOrigin{seen: make(map[uint64]int)}
	o.listen(env, originPort)
	return o
}

func (o *echoOrigin) listen(env *testenv.Env, port int) {
	l := env.Listen(":" + strconv.Itoa(port))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go o.serve(c)
		}
	}()
}

func (o *echoOrigin) serve(c net.Conn) {
	defer c.Close()
	var id [8]byte
	if _, err := io.ReadFull(c, id[:]); err != nil {
		return
	}
	o.mu.Lock()
	o.seen[binary.BigEndian.Uint64(id[:])]++
	o.mu.Unlock()
	c.Write(id[:])
}

// counts returns how many numbers came, and how many came more than once.
func (o *echoOrigin) counts() (came, twice int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, n := range o.seen {
		if n > 1 {
			twice++
		}
	}
	return len(o.seen), twice
}
