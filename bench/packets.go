//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/policy"
)

// What the datagrams go to that a relay takes: an echo at each address answers,
// for the relay to forward them to.
var (
	plainEcho   = netip.AddrFrom4([4]byte{198, 19, 255, 2})
	relayedEcho = netip.AddrFrom4([4]byte{198, 19, 255, 3})
	sunk        = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 19, 255, 4}), 9)
)

// addRelays starts what the datagrams go to and through.
func (s *scene) addRelays() (err error) {
	for _, to := range []struct {
		at   netip.Addr
		echo *netip.AddrPort
	}{{loopback, &s.echo}, {plainEcho, &s.plainEcho}, {relayedEcho, &s.relayedEcho}} {
		port, err := s.server("echo", s.outside(), roleEcho, to.at.String())
		if err != nil {
			return err
		}
		*to.echo = netip.AddrPortFrom(to.at, port)
	}
	if s.sinkPort, err = s.server("sink", s.outside(), roleSink); err != nil {
		return err
	}
	if s.takerPort, err = s.server("taker", s.provider(2), roleSink); err != nil {
		return err
	}
	if s.plainPort, err = s.server("plain relay", s.provider(0), rolePlainRelay, s.plainEcho.String()); err != nil {
		return err
	}
	s.relayPort, err = s.server("relay", s.provider(1), roleRelay)
	return err
}

// packetPolicy sends each of the destinations to the worker that is for it.
func (s *scene) packetPolicy() policy.Policy {
	var p policy.Policy
	for i, way := range []struct {
		to   netip.AddrPort
		port uint16
	}{{s.plainEcho, s.plainPort}, {s.relayedEcho, s.relayPort}, {sunk, s.takerPort}} {
		p.Providers = append(p.Providers, policy.Provider{Name: providerName(i), UDP: local(way.port), Cgroup: s.provider(i)})
		f := only(way.to, providerName(i))
		f.Protocols = []policy.Protocol{policy.UDP}
		p.Filters = append(p.Filters, f)
	}
	return p
}

// measuredSizes of datagrams: of a question, and of a full packet.
var measuredSizes = []int{64, longestDatagram}

func sectionOf(kind string, size int) string { return fmt.Sprintf("%s of %d bytes", kind, size) }

func (s *scene) packetVariants() []variant {
	all := s.sends()
	for _, size := range measuredSizes {
		all = append(all, s.relayed(sectionEcho, opEcho, size)...)
		all = append(all, s.relayed(sectionStream, opStream, size)...)
	}
	return all
}

// sends go to where nobody answers or wakes up: what is timed is the sender's.
func (s *scene) sends() []variant {
	send := func(name string, w *worker, to netip.AddrPort) variant {
		return variant{section: sectionSend, name: name, worker: w, order: order{
			Op: opSend, To: []netip.AddrPort{to}, Size: measuredSizes[0],
		}}
	}
	return []variant{
		send(nameDirect, s.direct, local(s.sinkPort)), send(nameAgain, s.again, local(s.sinkPort)),
		send(nameEmpty, s.empty, local(s.sinkPort)), send(nameAttached, s.app, local(s.sinkPort)),
		send(nameRedirected, s.app, sunk),
	}
}

// relayed goes to an echo and comes back.
func (s *scene) relayed(section, op string, size int) []variant {
	way := func(name string, w *worker, to netip.AddrPort) variant {
		return variant{section: sectionOf(section, size), name: name, worker: w, order: order{
			Op: op, To: []netip.AddrPort{to}, Size: size,
		}}
	}
	return []variant{
		way(nameDirect, s.direct, s.echo), way(nameAttached, s.app, s.echo),
		way(namePlainRelay, s.app, s.plainEcho), way(nameRelay, s.app, s.relayedEcho),
	}
}

// packets measures UDP.
func (s *scene) packets(ctx context.Context, opts options) (results, error) {
	return rounds(opts.rounds, func(r results, first, end int) error {
		return s.whileLoaded(func(e *engine.Engine) error { return s.loadPackets(ctx, e, r, first, end, opts.calls) })
	})
}

func (s *scene) loadPackets(ctx context.Context, e *engine.Engine, r results, first, end, calls int) error {
	if err := e.Apply(s.packetPolicy()); err != nil {
		return err
	}
	if err := s.forgetFlows(); err != nil {
		return err
	}
	for round := first; round < end; round++ {
		if err := r.round(ctx, s.packetVariants(), round, calls); err != nil {
			return err
		}
	}
	return s.checkPackets(e)
}

// forgetFlows closes the sockets of flows that programs of before have made.
func (s *scene) forgetFlows() error {
	for _, w := range []*worker{s.direct, s.again, s.empty, s.app} {
		if _, err := w.do(order{Op: opRelease}); err != nil {
			return err
		}
	}
	return nil
}

// checkPackets refuses figures of datagrams that went another way: through the
// relays and to the sink there is one flow each, but that an idle one ends.
func (s *scene) checkPackets(e *engine.Engine) error {
	counters, err := e.Counters()
	if err != nil {
		return err
	}
	if counters["redirected"] < 3 || counters["bypassed"] > 0 || counters["blocked"] > 0 {
		return fmt.Errorf("check counters: %d redirected, %d bypassed, %d blocked; want 3 at least and none", counters["redirected"], counters["bypassed"], counters["blocked"])
	}
	return nil
}
