//go:build linux

package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/waybill-net/waybill/internal/flow"
)

// counterNames has the words that people see, by the kernel's number.
var counterNames = [...]string{
	kernelWbCounterWB_PASSED:                "passed",
	kernelWbCounterWB_REDIRECTED:            "redirected",
	kernelWbCounterWB_BYPASSED:              "bypassed",
	kernelWbCounterWB_BLOCKED:               "blocked",
	kernelWbCounterWB_LOOPED:                "looped",
	kernelWbCounterWB_FORBIDDEN:             "forbidden",
	kernelWbCounterWB_QUIC_DROPPED:          "quic_dropped",
	kernelWbCounterWB_SHADOWED:              "shadowed",
	kernelWbCounterWB_DOWN_NO_LISTENER:      "down_no_listener",
	kernelWbCounterWB_DOWN_FOREIGN_LISTENER: "down_foreign_listener",
	kernelWbCounterWB_DOWN_NO_ADDRESS:       "down_no_address",
	kernelWbCounterWB_DOWN_DEVICE:           "down_device",
	kernelWbCounterWB_DOWN_INFLIGHT_FULL:    "down_inflight_full",
	kernelWbCounterWB_REFUSED_NO_MEMORY:     "refused_no_memory",
	kernelWbCounterWB_REFUSED_OVER_SHARE:    "refused_over_share",
	kernelWbCounterWB_REFUSED_PEERS_FULL:    "refused_peers_full",
	kernelWbCounterWB_DOWN_STUCK:            "down_stuck",
	kernelWbCounterWB_DOWN_BACKLOG_FULL:     "down_backlog_full",
	kernelWbCounterWB_DESTINATION_REFUSES:   "destination_refuses",
	kernelWbCounterWB_DESTINATION_UNROUTED:  "destination_unrouted",
	kernelWbCounterWB_DEPARTED:              "departed",
	kernelWbCounterWB_ARRIVED:               "arrived",
	kernelWbCounterWB_ABANDONED:             "abandoned",
	kernelWbCounterWB_LOST:                  "lost",
	kernelWbCounterWB_DIVERTED:              "diverted",
	kernelWbCounterWB_INTERCEPTED:           "intercepted",
	kernelWbCounterWB_INHERITED:             "inherited",
	kernelWbCounterWB_INHERITED_AMBIGUOUS:   "inherited_ambiguous",
	kernelWbCounterWB_UNLISTED:              "unlisted",
	kernelWbCounterWB_QUERIED:               "queried",
	kernelWbCounterWB_SET:                   "set",
	kernelWbCounterWB_SET_DENIED:            "set_denied",
	kernelWbCounterWB_SET_MALFORMED:         "set_malformed",
	kernelWbCounterWB_SET_FORGED:            "set_forged",
	kernelWbCounterWB_SET_CONNECTED:         "set_connected",
	kernelWbCounterWB_SET_SOCKET_TYPE:       "set_socket_type",
	kernelWbCounterWB_SET_NO_MEMORY:         "set_no_memory",
	kernelWbCounterWB_EVENTS_LOST:           "events_lost",
}

// Counters returns every outcome since Open by name; bpf/abi.h says what each
// one means. Outcomes that never happened are there with 0.
func (e *Engine) Counters() (map[string]uint64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	counters := make(map[string]uint64, len(counterNames))
	for i, name := range counterNames {
		var perCPU []uint64
		if err := e.objects.Counters.Lookup(uint32(i), &perCPU); err != nil {
			return nil, fmt.Errorf("read counter %s: %w", name, err)
		}
		for _, n := range perCPU {
			counters[name] += n
		}
	}
	return counters, nil
}

// ProviderCounters counts what happened to the connections that one provider
// wanted, since it came into the policy.
type ProviderCounters struct {
	Redirected uint64
	Arrived    uint64 // of those, handed to the proxy with their records
	Bypassed   uint64 // not redirected because the provider was down
	Blocked    uint64 // refused because it was down
	Forbidden  uint64 // refused because a filter blocks them
	Shadowed   uint64 // redirects and refusals that shadow mode kept from happening
	Inherited  uint64 // connections of its proxy that took over the records of one it accepted
	Reset      uint64 // redirected connections that its proxy reset or, having died meanwhile, refused
}

// ProviderCounters returns the counters of each provider of the policy in
// force, by name.
func (e *Engine) ProviderCounters() (map[string]ProviderCounters, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	counters := make(map[string]ProviderCounters)
	if e.table == nil {
		return counters, nil
	}
	for _, p := range e.table.Providers {
		var perCPU []kernelWbProviderCounts
		if err := e.objects.ProviderCounters.Lookup(p.Handle, &perCPU); err != nil {
			return nil, fmt.Errorf("read counters of provider %q: %w", p.Name, err)
		}
		var sum ProviderCounters
		for _, c := range perCPU {
			sum.Redirected += c.N[kernelWbProviderCounterWB_PROVIDER_REDIRECTED]
			sum.Arrived += c.N[kernelWbProviderCounterWB_PROVIDER_ARRIVED]
			sum.Bypassed += c.N[kernelWbProviderCounterWB_PROVIDER_BYPASSED]
			sum.Blocked += c.N[kernelWbProviderCounterWB_PROVIDER_BLOCKED]
			sum.Forbidden += c.N[kernelWbProviderCounterWB_PROVIDER_FORBIDDEN]
			sum.Shadowed += c.N[kernelWbProviderCounterWB_PROVIDER_SHADOWED]
			sum.Inherited += c.N[kernelWbProviderCounterWB_PROVIDER_INHERITED]
			sum.Reset += c.N[kernelWbProviderCounterWB_PROVIDER_RESET]
		}
		counters[p.Name] = sum
	}
	return counters, nil
}

// InFlight counts the connections that are between connect() and the proxy's
// end of the handshake.
func (e *Engine) InFlight() (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.inFlight()
}

func (e *Engine) inFlight() (int, error) {
	n, err := countEntries[kernelWbFlightKey](e.objects.Inflight)
	if err != nil {
		return 0, fmt.Errorf("count connections in flight: %w", err)
	}
	return n, nil
}

// Candidates counts the connections that proxies have accepted: those whose
// records another one can take over.
func (e *Engine) Candidates() (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n, err := countEntries[kernelWbCandidateKey](e.objects.Candidates)
	if err != nil {
		return 0, fmt.Errorf("count accepted connections: %w", err)
	}
	return n, nil
}

// Peers counts the flows of UDP, and the entries that lead to them.
func (e *Engine) Peers() (flows, destinations int, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if flows, err = countKeys[kernelWbPeerKey, kernelWbPeer](e.objects.Peers); err == nil {
		destinations, err = countKeys[kernelWbDestinationKey, uint64](e.objects.Destinations)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("count flows of UDP: %w", err)
	}
	return flows, destinations, nil
}

// countEntries walks a map of sockets. While it changes, that is roughly their number.
func countEntries[Key any](m *ebpf.Map) (n int, err error) { return countKeys[Key, kernelWbSocket](m) }

func countKeys[Key, Value any](m *ebpf.Map) (n int, err error) {
	var (
		key   Key
		value Value
		it    = m.Iterate()
	)
	for it.Next(&key, &value) {
		n++
	}
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return 0, err
	}
	return n, nil
}

// Role says on which side of a redirected connection a socket is.
type Role string

const (
	Connects Role = "connects" // it called connect() and was redirected, or carries records
	Accepted Role = "accepted" // a proxy accepted it
)

// Flow is one live socket that carries redirect records. The sockets of one
// application connection and of all that proxies opened for it share the ID.
type Flow struct {
	ID           uint64
	Protocol     flow.Protocol
	Role         Role
	Local        netip.AddrPort
	Remote       netip.AddrPort // as the kernel has it: the proxy's address on a redirected socket
	State        string         // of the TCP connection; of UDP "connected" or "unconnected"
	SocketCookie uint64         // 0 if the socket has none yet
	Origin       Origin
	Hops         []Hop // oldest first
	Carried      int   // of the hops, those that a proxy set; the rest was added by this connection
}

// Origin is the process that opened the flow.
type Origin struct {
	PID, TGID, UID, GID uint32
	CgroupID            uint64
	NetnsCookie         uint64
	Start               time.Duration // since boot
	Comm                string
}

// Hop is one redirect of a flow.
type Hop struct {
	Provider string         // its handle in hexadecimal, if no policy so far has named it
	Dst      netip.AddrPort // what the connection asked for
	Time     time.Duration  // since boot
	Implied  bool           // by a connection without records from the provider's own process
}

// Flows returns the live sockets that carry records, of the network namespace
// of the calling thread, in no particular order. The kernel walks the sockets;
// the data path is not slowed down.
func (e *Engine) Flows() ([]Flow, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	raw, err := iterate(e.objects.WbListFlows)
	if err != nil {
		return nil, fmt.Errorf("list flows: %w", err)
	}
	var flows []Flow
	for in := bytes.NewReader(raw); in.Len() > 0; {
		var (
			head   kernelWbFlow
			socket kernelWbSocket
		)
		if err := errors.Join(binary.Read(in, binary.NativeEndian, &head), binary.Read(in, binary.NativeEndian, &socket)); err != nil {
			return nil, fmt.Errorf("list flows: %w", err)
		}
		flows = append(flows, e.decodeFlow(&head, &socket))
	}
	peers, err := e.peerFlows()
	if err != nil {
		return nil, fmt.Errorf("list flows: %w", err)
	}
	return append(flows, peers...), nil
}

// peerFlows lists the flows of UDP whose sockets are open. A connected one has
// none before its proxy has read something from it.
func (e *Engine) peerFlows() ([]Flow, error) {
	own, err := NetNSCookie()
	if err != nil {
		return nil, err
	}
	var (
		flows []Flow
		key   kernelWbPeerKey
		peer  kernelWbPeer
		it    = e.objects.Peers.Iterate()
	)
	for it.Next(&key, &peer) {
		if key.NetnsCookie != own || peer.Parted != 0 {
			continue
		}
		f := e.decodeFlow(&kernelWbFlow{Local: peer.Client, Remote: peer.Socket.Proxy, SocketCookie: peer.Cookie}, &peer.Socket)
		f.Protocol, f.State = flow.UDP, "unconnected"
		if peer.Flags&uint32(kernelWbPeerFlagsWB_PEER_CONNECTED) != 0 {
			f.State = "connected"
		}
		flows = append(flows, f)
	}
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return nil, err
	}
	return flows, nil
}

// NetNSCookie is that of the calling thread's network namespace.
func NetNSCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	return cookie, os.NewSyscallError("getsockopt", err)
}

// Listener is a listening TCP socket.
type Listener struct {
	At          netip.AddrPort
	Owner       string        // the provider whose process created it; empty: none
	Waiting     int           // connections that nobody has accepted yet
	Most        int           // of them; there is room for one more, and then SYNs are dropped
	LongestWait time.Duration // of one of them
}

// Full reports whether the kernel drops further connections.
func (l *Listener) Full() bool { return l.Waiting > l.Most }

// Takes reports whether connections to an address arrive at the listener.
func (l *Listener) Takes(a netip.AddrPort) bool {
	return l.At.Port() == a.Port() && (l.At.Addr() == a.Addr() || l.At.Addr().IsUnspecified())
}

// Listeners returns the listening sockets of the network namespace of the
// calling thread, as the connect hook sees them.
func (e *Engine) Listeners() ([]Listener, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	raw, err := iterate(e.objects.WbListListeners)
	if err != nil {
		return nil, fmt.Errorf("list listeners: %w", err)
	}
	var listeners []Listener
	for in := bytes.NewReader(raw); in.Len() > 0; {
		var l kernelWbListener
		if err := binary.Read(in, binary.NativeEndian, &l); err != nil {
			return nil, fmt.Errorf("list listeners: %w", err)
		}
		listener := Listener{
			At: decodeEndpoint(l.At), Waiting: int(l.Waiting), Most: int(l.Most),
			LongestWait: time.Duration(l.LongestWait) * time.Microsecond,
		}
		if l.Owner != 0 {
			listener.Owner = e.names.provider(l.Owner)
		}
		listeners = append(listeners, listener)
	}
	return listeners, nil
}

// iterate runs an iterator and returns what it wrote.
func iterate(program *ebpf.Program) ([]byte, error) {
	iter, err := link.AttachIter(link.IterOptions{Program: program})
	if err != nil {
		return nil, err
	}
	defer iter.Close()
	r, err := iter.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func (e *Engine) decodeFlow(head *kernelWbFlow, s *kernelWbSocket) Flow {
	o := s.Records.Origin
	f := Flow{
		ID:           o.FlowId,
		Role:         Connects,
		Local:        decodeEndpoint(head.Local),
		Remote:       decodeEndpoint(head.Remote),
		State:        tcpState(head.TcpState),
		SocketCookie: head.SocketCookie,
		Origin: Origin{
			PID: o.Pid, TGID: o.Tgid, UID: o.Uid, GID: o.Gid,
			CgroupID: o.CgroupId, NetnsCookie: o.NetnsCookie,
			Start: time.Duration(o.StartTime), Comm: commString(o.Comm),
		},
		Carried: int(s.Carried),
	}
	if s.Role == uint8(kernelWbRoleWB_ACCEPTED) {
		f.Role = Accepted
	}
	for _, h := range s.Records.Hops[:min(int(s.Records.N_hops), len(s.Records.Hops))] {
		f.Hops = append(f.Hops, Hop{
			Provider: e.names.provider(h.Handle),
			Dst:      decodeEndpoint(kernelWbEndpoint{Addr: h.Addr, Port: h.Port}),
			Time:     time.Duration(h.Time),
			Implied:  h.Flags&uint16(kernelWbHopFlagsWB_HOP_IMPLIED) != 0,
		})
	}
	return f
}

func commString(c [16]int8) string {
	var b [16]byte
	for i, x := range c {
		b[i] = byte(x)
	}
	return unix.ByteSliceToString(b[:])
}

// tcpStates follows the kernel's include/net/tcp_states.h.
var tcpStates = [...]string{
	1: "established", 2: "syn-sent", 3: "syn-recv", 4: "fin-wait-1", 5: "fin-wait-2", 6: "time-wait",
	7: "close", 8: "close-wait", 9: "last-ack", 10: "listen", 11: "closing", 12: "new-syn-recv",
}

func tcpState(n uint32) string {
	if int(n) < len(tcpStates) {
		return tcpStates[n]
	}
	return fmt.Sprintf("state %d", n)
}
