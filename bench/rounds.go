//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/waybill-net/waybill/internal/engine"
)

// roundsPerLoad is how long the programs stay before they are loaded anew:
// where they come to lie in memory is luck, and alters the figures.
const roundsPerLoad = 10

// rounds lets every variant have its turn, again and again. Each load measures
// the rounds from first up to end with the programs loaded once.
func rounds(n int, load func(r results, first, end int) error) (results, error) {
	r := make(results)
	for first := 0; first < n; first += roundsPerLoad {
		if err := load(r, first, min(first+roundsPerLoad, n)); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// costs measures a connection and an option.
func (s *scene) costs(ctx context.Context, opts options) (results, error) {
	return rounds(opts.rounds, func(r results, first, end int) error {
		for round := first; round < end; round++ {
			if err := s.elsewhere(ctx, r, round, opts.calls); err != nil {
				return err
			}
		}
		return s.whileLoaded(func(e *engine.Engine) error { return s.loadCosts(ctx, e, r, first, end, opts.calls) })
	})
}

// whileLoaded runs f with our programs attached to the scope, and with those
// that do nothing to the other one.
func (s *scene) whileLoaded(f func(e *engine.Engine) error) (err error) {
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
	return f(e)
}

func (s *scene) loadCosts(ctx context.Context, e *engine.Engine, r results, first, end, calls int) error {
	f, err := s.makeFlows(e)
	if err != nil {
		return err
	}
	for round := first; round < end; round++ {
		for _, phase := range s.phases(f) {
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
	return checkCounters(e, "redirected", "passed", "inherited")
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

// unwanted are counters that stay at 0 while all goes as it is meant to.
var unwanted = []string{
	"bypassed", "blocked", "looped", "lost", "diverted", "abandoned", "set_denied", "set_forged",
	"unlisted", "inherited_ambiguous",
}

// checkCounters refuses figures of something other than what they say: every
// connection to be redirected must have been, and have brought its records.
func checkCounters(e *engine.Engine, wanted ...string) error {
	counters, err := e.Counters()
	if err != nil {
		return err
	}
	for _, bad := range unwanted {
		if counters[bad] > 0 {
			return fmt.Errorf("check counters: %d %s, want none", counters[bad], bad)
		}
	}
	for _, good := range wanted {
		if counters[good] == 0 {
			return fmt.Errorf("check counters: none %s, want some", good)
		}
	}
	if counters["redirected"] != counters["arrived"] {
		return fmt.Errorf("check counters: %d redirected, %d arrived", counters["redirected"], counters["arrived"])
	}
	return nil
}
