// Package inspect is waybill's own proxy, as a process of its own: it passes on
// what is redirected to it, and says what that is. It reads DNS, over UDP and
// TCP, and the beginning of QUIC, keeps names from being reached that are to be
// blocked, and tells which addresses names lead to.
package inspect

import (
	"cmp"
	"context"
	"errors"
	"io"
	"strings"
	"sync"

	"github.com/waybill-net/waybill"
	"github.com/waybill-net/waybill/internal/dns"
	"github.com/waybill-net/waybill/internal/proxy"
)

// Options of [Run]. The zero value passes everything and says nothing.
type Options struct {
	// Rules are the names that are blocked: questions about them are answered
	// in the place of the resolver, and QUIC to them is refused.
	Rules dns.Rules

	// Output gets a line for each connection of TCP, each flow of UDP and each
	// question. If it does not take them in time, some are missing: it gets
	// their number instead. nil: nobody.
	Output io.Writer

	// MaxFlows bounds the flows of UDP, and the connections of TCP, that each
	// address has open at once. 0: 65536 flows, and no bound of connections.
	MaxFlows int

	// Tell is told what resolvers answer, before a program has the answer; nil:
	// nobody is. It may be called from several goroutines.
	Tell func(context.Context, dns.Resolved)

	// Ready is called when all addresses are listened on; nil: nobody waits.
	Ready func()
}

// maxFlows is of UDP, where nobody ends a flow but time: without a bound a program
// could open any number of them.
const maxFlows = 1 << 16

// forUDP stands before the addresses on which Run takes UDP.
const forUDP = "udp:"

// UDP is an address as [Run] wants it for UDP.
func UDP(address string) string { return forUDP + address }

// Run serves until ctx ends. An address is of TCP, unless "udp:" stands before
// it.
func Run(ctx context.Context, addresses []string, opts Options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &service{Options: opts, ctx: ctx}
	if s.Output != nil {
		s.lines = newOutput(s.Output)
		defer s.lines.close()
	}
	var (
		serving sync.WaitGroup
		errs    = make([]error, len(addresses))
	)
	for i, address := range addresses {
		serve, err := s.listen(ctx, address)
		if err != nil {
			errs[i] = err
			cancel()
			break
		}
		serving.Go(func() {
			defer cancel() // half a proxy is none
			errs[i] = serve(ctx)
		})
	}
	if s.Ready != nil && ctx.Err() == nil {
		s.Ready()
	}
	serving.Wait()
	return errors.Join(errs...)
}

// service is one run of the proxy.
type service struct {
	Options
	ctx   context.Context // of the run
	lines *output         // nil: nobody reads them
}

// listen opens one of the proxy's sockets and returns what serves it.
func (s *service) listen(ctx context.Context, address string) (serve func(context.Context) error, err error) {
	at, udp := strings.CutPrefix(address, forUDP)
	if udp {
		l, err := waybill.ListenPacket(ctx, "udp", at)
		if err != nil {
			return nil, err
		}
		p := proxy.Packets{
			Inspect: s.inspectPackets, Report: s.reportPackets,
			MaxFlows: cmp.Or(s.MaxFlows, maxFlows), Refused: s.refused(address),
		}
		return func(ctx context.Context) error { return p.Serve(ctx, l) }, nil
	}
	l, err := waybill.Listen(ctx, "tcp", at)
	if err != nil {
		return nil, err
	}
	p := proxy.Proxy{Take: s.take, Report: s.report, MaxConns: s.MaxFlows, Refused: s.refused(address)}
	return func(ctx context.Context) error { return p.Serve(ctx, l) }, nil
}

// portOfDNS is where what is redirected is taken for DNS.
const portOfDNS = 53

// take takes DNS.
func (s *service) take(ctx context.Context, c *waybill.Conn) bool {
	if c.OriginalDestination().Port() != portOfDNS {
		return false
	}
	s.relayDNS(ctx, c)
	return true
}

func (s *service) inspectPackets(c *waybill.PacketConn, send proxy.Send) proxy.PacketInspector {
	to := source{c.Origin(), c.OriginalDestination(), "/udp", 0}
	if c.OriginalDestination().Port() == portOfDNS {
		return &dnsPackets{dnsTalk{service: s, who: to}, quicPackets{service: s, who: to, send: send}}
	}
	return &quicPackets{service: s, who: to, send: send}
}

func (s *service) tell(found dns.Resolved) {
	if s.Tell != nil {
		s.Tell(s.ctx, found)
	}
}
