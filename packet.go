package waybill

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/waybill-net/waybill/internal/datagram"
)

// DefaultIdleTimeout ends flows of a [PacketListener].
const DefaultIdleTimeout = time.Minute

// Room for bursts, as far as the kernel allows: it cuts down what is beyond the
// sysctls net.core.rmem_max and wmem_max. A buffer that is empty takes no memory.
const (
	listenerBuffer = 4 << 20
	upstreamBuffer = 1 << 20
)

// PacketListener receives redirected datagrams and sorts them by flow: what
// one socket of an application and one destination say to each other.
type PacketListener struct {
	// IdleTimeout ends a flow in which no datagram went either way for so
	// long. It is read by AcceptConn. Default DefaultIdleTimeout.
	IdleTimeout time.Duration

	conn   *net.UDPConn
	socket *datagram.Socket

	// Of AcceptConn alone.
	opened []opened           // and not returned yet
	run    []datagram.Message // of one flow
	now    time.Time
	sweeps time.Time // when idle flows are looked for next

	mu    sync.Mutex
	flows map[netip.AddrPort]*PacketConn
}

// opened is a new flow, or why it could not be opened.
type opened struct {
	conn *PacketConn
	err  error
}

// ListenPacket listens for redirected datagrams. The network is "udp", "udp4"
// or "udp6".
func ListenPacket(ctx context.Context, network, address string) (*PacketListener, error) {
	var lc net.ListenConfig
	c, err := lc.ListenPacket(ctx, network, address)
	if err != nil {
		return nil, err
	}
	udp, ok := c.(*net.UDPConn)
	if !ok {
		c.Close()
		return nil, &OpError{Op: opAccept, Err: errors.New("network " + network + " is not UDP"), kind: ErrNotSupported}
	}
	l, err := NewPacketListener(udp)
	if err != nil {
		udp.Close()
		return nil, err
	}
	return l, nil
}

// NewPacketListener takes over a socket that is bound to a proxy's address.
// On an error it is still the caller's.
func NewPacketListener(c *net.UDPConn) (*PacketListener, error) {
	if err := askForRecords(c); err != nil {
		return nil, err
	}
	socket, err := datagram.NewSocket(c, listenerBuffer)
	if err != nil {
		return nil, err
	}
	return &PacketListener{conn: c, socket: socket, flows: make(map[netip.AddrPort]*PacketConn)}, nil
}

// Addr is that of the socket.
func (l *PacketListener) Addr() net.Addr { return l.conn.LocalAddr() }

// SyscallConn gives access to the socket, for its options.
func (l *PacketListener) SyscallConn() (syscall.RawConn, error) { return l.conn.SyscallConn() }

// Close ends all flows.
func (l *PacketListener) Close() error {
	err := l.conn.Close()
	for _, c := range l.remove(func(*PacketConn) bool { return true }) {
		c.end()
	}
	return err
}

// Accept is [PacketListener.AcceptConn] for code that wants a [net.Listener].
func (l *PacketListener) Accept() (net.Conn, error) {
	c, err := l.AcceptConn()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptConn waits for the first datagram of the next flow and reads its
// records. Meanwhile it hands out the datagrams of all others, and ends those
// that are idle: so it is to be called again at once, from one goroutine. A
// flow that was not redirected is returned too: see [PacketConn.Redirected].
//
// An error that is not net.ErrClosed is of one flow, whose datagram is lost.
func (l *PacketListener) AcceptConn() (*PacketConn, error) {
	for {
		if len(l.opened) > 0 {
			o := l.opened[0]
			l.opened = l.opened[1:]
			return o.conn, o.err
		}
		l.opened = nil
		l.sweep()
		l.conn.SetReadDeadline(l.sweeps)
		err := l.socket.Read(l.handOut, func(error) {}) // of answers to applications that are gone
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, err
		}
	}
}

// handOut gives each flow what has come for it, all at once, and reports
// whether to go on.
func (l *PacketListener) handOut(messages []datagram.Message) bool {
	l.now = time.Now()
	for len(messages) > 0 {
		messages = l.takeRun(messages)
		peer := l.run[0].Peer
		c := l.flow(peer)
		if c == nil {
			var err error
			if c, err = l.open(l.run[0]); err != nil {
				l.opened = append(l.opened, opened{err: err})
				continue
			}
			l.opened = append(l.opened, opened{conn: c})
		} else if err := c.check(l.run[0]); err != nil {
			l.opened = append(l.opened, opened{err: err})
			continue
		}
		c.deliver(l.run, l.now)
	}
	return len(l.opened) == 0 && l.now.Before(l.sweeps)
}

// takeRun moves the messages of the first one's flow to l.run and returns the
// others. Both stay in order.
func (l *PacketListener) takeRun(messages []datagram.Message) (others []datagram.Message) {
	l.run, others = l.run[:0], messages[:0]
	peer := messages[0].Peer
	for _, m := range messages {
		if m.Peer == peer {
			l.run = append(l.run, m)
		} else {
			others = append(others, m)
		}
	}
	return others
}

func (l *PacketListener) flow(peer netip.AddrPort) *PacketConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.flows[peer]
}

func (l *PacketListener) open(first datagram.Message) (*PacketConn, error) {
	c := newPacketConn(l, first.Peer)
	if err := c.query(first); err != nil && !errors.Is(err, ErrNotRedirected) {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flows[c.peer] = c
	return c, nil
}

func (l *PacketListener) forget(c *PacketConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.flows[c.peer] == c {
		delete(l.flows, c.peer)
	}
}

// sweep ends idle flows, once in a while.
func (l *PacketListener) sweep() {
	now := time.Now()
	if now.Before(l.sweeps) {
		return
	}
	timeout := l.IdleTimeout
	if timeout <= 0 {
		timeout = DefaultIdleTimeout
	}
	l.sweeps = now.Add(min(time.Second, timeout/4))
	for _, c := range l.remove(func(c *PacketConn) bool { return now.Sub(time.Unix(0, c.last.Load())) >= timeout }) {
		c.end()
	}
}

// remove returns the flows that it has removed: they end without the lock.
func (l *PacketListener) remove(which func(*PacketConn) bool) (removed []*PacketConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for peer, c := range l.flows {
		if which(c) {
			delete(l.flows, peer)
			removed = append(removed, c)
		}
	}
	return removed
}
