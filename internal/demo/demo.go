//go:build linux

// Package demo shows on one screen what waybill is for: two proxies that
// redirect each other for ever, the same two in a chain, and the chain when
// one of them dies.
package demo

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// Result is what the demo found. It is what `waybill demo --json` prints.
type Result struct {
	Loop      Loop      `json:"loop"`
	Chain     Chain     `json:"chain"`
	DeadProxy DeadProxy `json:"dead_proxy"`
}

// Loop is a request through two proxies without records.
type Loop struct {
	Hops    int  `json:"hops"`
	Arrived bool `json:"arrived"`

	took time.Duration
	path []string
}

// Chain is the same request with records.
type Chain struct {
	Hops       []string `json:"hops"`
	Arrived    bool     `json:"arrived"`
	ClientPeer string   `json:"client_peer"`

	detail   []hop
	families []family
}

// family is the chain once more, over another kind of address.
type family struct {
	name    string
	hops    []string
	arrived bool
}

// DeadProxy is the chain after the first proxy was killed.
type DeadProxy struct {
	Hops    []string `json:"hops"`
	Arrived bool     `json:"arrived"`

	pid      int
	requests int
	failed   int
}

var wantChain = []string{"adblock", "dlp"}

// Held reports whether everything went as waybill promises.
func (r *Result) Held() bool {
	for _, f := range r.Chain.families {
		if !f.arrived || !slices.Equal(f.hops, wantChain) {
			return false
		}
	}
	return !r.Loop.Arrived && r.Loop.Hops > 2*len(wantChain) &&
		r.Chain.Arrived && slices.Equal(r.Chain.Hops, wantChain) && r.Chain.ClientPeer == originAddr &&
		r.DeadProxy.Arrived && slices.Equal(r.DeadProxy.Hops, wantChain[1:])
}

var originAddr = netip.AddrPortFrom(origin4, originPort).String()

// Run plays the demo and calls show after each act. It needs root and leaves
// nothing behind.
func Run(ctx context.Context, show func(act int, r *Result)) (r *Result, err error) {
	s, err := newStage()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.startProxy(ctx, "adblock", 7001); err != nil {
		return nil, err
	}
	if err := s.startProxy(ctx, "dlp", 7002); err != nil {
		return nil, err
	}

	r = &Result{}
	for act, play := range []func(context.Context, *stage) error{r.Loop.play, r.Chain.play, r.DeadProxy.play} {
		if err := play(ctx, s); err != nil {
			return nil, err
		}
		show(act+1, r)
	}
	return r, nil
}

func (l *Loop) play(ctx context.Context, s *stage) error {
	if err := s.apply(true); err != nil {
		return err
	}
	start := time.Now()
	requests, err := s.runClient(ctx, origin4, 1)
	if err != nil {
		return err
	}
	l.took = time.Since(start)
	hops := inOrder(s.collect(4 * maxConns))
	l.Hops, l.path, l.Arrived = len(hops), names(hops), arrived(requests)
	return nil
}

func (c *Chain) play(ctx context.Context, s *stage) error {
	if err := s.apply(false); err != nil {
		return err
	}
	requests, err := s.runClient(ctx, origin4, 1)
	if err != nil {
		return err
	}
	c.detail = inOrder(s.collect(len(wantChain) + 1))
	c.Hops, c.Arrived, c.ClientPeer = names(c.detail), arrived(requests), requests[0].Peer
	for _, f := range []struct {
		name string
		host netip.Addr
	}{{"IPv6", origin6}, {"IPv4-mapped", netip.AddrFrom16(origin4.As16())}} {
		requests, err := s.runClient(ctx, f.host, 1)
		if err != nil {
			return err
		}
		c.families = append(c.families, family{f.name, names(inOrder(s.collect(len(wantChain) + 1))), arrived(requests)})
	}
	return nil
}

func (d *DeadProxy) play(ctx context.Context, s *stage) error {
	adblock := s.actors["adblock"]
	d.pid = adblock.cmd.Process.Pid
	if err := adblock.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-adblock.done
	d.requests = 20
	requests, err := s.runClient(ctx, origin4, d.requests)
	if err != nil {
		return err
	}
	d.Arrived = arrived(requests)
	for _, r := range requests {
		if r.Body != greeting {
			d.failed++
		}
	}
	hops := names(s.collect(d.requests + 1))
	slices.Sort(hops)
	d.Hops = slices.Compact(hops)
	return nil
}

// arrived reports whether the origin answered every request.
func arrived(requests []request) bool {
	return !slices.ContainsFunc(requests, func(r request) bool { return r.Body != greeting })
}

// inOrder sorts hops by the time at which the connection was accepted: the
// proxies are processes of their own, and their reports come as they come.
func inOrder(hops []hop) []hop {
	slices.SortFunc(hops, func(a, b hop) int { return a.Start.Compare(b.Start) })
	return hops
}

func names(hops []hop) []string {
	var names []string
	for _, h := range hops {
		names = append(names, h.Proxy)
	}
	return names
}
