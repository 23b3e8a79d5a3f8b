//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/waybill-net/waybill/internal/engine"
)

// roundsPerLoad is how long the programs stay before they are loaded anew:
// where they come to lie in memory is luck, and alters the figures.
const roundsPerLoad = 10

// rounds lets every variant have its turn, again and again.
func (s *scene) rounds(ctx context.Context, opts options) (results, error) {
	r := make(results)
	for first := 0; first < opts.rounds; first += roundsPerLoad {
		if err := s.load(ctx, r, first, min(first+roundsPerLoad, opts.rounds), opts.calls); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// load measures the rounds from first up to end with the programs loaded once.
func (s *scene) load(ctx context.Context, r results, first, end, calls int) (err error) {
	for round := first; round < end; round++ {
		if err := s.elsewhere(ctx, r, round, calls); err != nil {
			return err
		}
	}
	e, err := engine.Open(engine.Options{Scope: s.scope()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	empty, err := attachEmpty(s.emptyScope())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, empty.Close()) }()
	records, err := s.makeChain(e)
	if err != nil {
		return err
	}
	for round := first; round < end; round++ {
		for _, phase := range s.phases(records) {
			if err := e.Apply(phase.policy); err != nil {
				return err
			}
			if err := r.round(ctx, phase.variants, round, calls); err != nil {
				return err
			}
		}
		if err := s.events(ctx, e, r, round, calls); err != nil {
			return err
		}
	}
	return checkCounters(e)
}

// makeChain sends one connection through all proxies, and keeps its sockets.
// It returns the records that each proxy found.
func (s *scene) makeChain(e *engine.Engine) ([][]byte, error) {
	if err := e.Apply(s.chainPolicy()); err != nil {
		return nil, err
	}
	for _, w := range append([]*worker{s.app}, s.proxies...) {
		if _, err := w.do(order{Op: opRelease}); err != nil {
			return nil, err
		}
	}
	var chain [][]byte
	from, records := s.app, []byte(nil)
	for i, to := range s.proxies {
		if _, err := from.do(order{Op: opDial, To: []netip.AddrPort{unserved}, Records: records}); err != nil {
			return nil, err
		}
		r, err := to.do(order{Op: opAccept})
		if err != nil {
			return nil, err
		}
		if len(r.Records) <= len(records) {
			return nil, fmt.Errorf("make chain: proxy %d got %d bytes of records, the one before it %d", i+1, len(r.Records), len(records))
		}
		from, records = to, r.Records
		chain = append(chain, records)
	}
	return chain, nil
}

// turnsPerRound is how often the variants alternate while a policy is in
// force. Short turns see the same weather, so their differences are true.
const turnsPerRound = 4

// round measures every variant in turns.
func (r results) round(ctx context.Context, variants []variant, round, calls int) error {
	for i := range turnsPerRound {
		if err := r.turn(ctx, variants, round*turnsPerRound+i, calls/turnsPerRound); err != nil {
			return err
		}
	}
	return nil
}

// turn takes the variants in a random order: whoever always came second would
// always find the same state of the caches.
func (r results) turn(ctx context.Context, variants []variant, turn, calls int) error {
	for _, i := range rand.Perm(len(variants)) {
		v := variants[i]
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("measure %s: %w", v.name, err)
		}
		answer, err := v.run(calls)
		if err != nil {
			return fmt.Errorf("measure %s: %w", v.name, err)
		}
		r.add(v.section, v.name, turn, answer.Samples)
		if v.section == sectionConnect {
			r.add(sectionCycle, v.name, turn, answer.Cycles)
		}
	}
	return nil
}

// checkCounters refuses figures of something other than what they say: every
// connection to be redirected must have been, and have brought its records.
func checkCounters(e *engine.Engine) error {
	counters, err := e.Counters()
	if err != nil {
		return err
	}
	for _, bad := range []string{"bypassed", "blocked", "looped", "lost", "diverted", "abandoned", "set_denied", "set_forged"} {
		if counters[bad] > 0 {
			return fmt.Errorf("check counters: %d %s, want none", counters[bad], bad)
		}
	}
	if counters["redirected"] == 0 || counters["redirected"] != counters["arrived"] || counters["passed"] == 0 {
		return fmt.Errorf("check counters: %d passed, %d redirected, %d arrived", counters["passed"], counters["redirected"], counters["arrived"])
	}
	return nil
}
