//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"

	"github.com/waybill-net/waybill/internal/engine"
)

// events measures redirects while somebody reads the events, which the kernel
// must wake up, and while nobody does.
func (s *scene) events(ctx context.Context, e *engine.Engine, r results, round, calls int) error {
	if err := e.Apply(s.smallPolicy()); err != nil {
		return err
	}
	turns := []func(turn int) error{
		func(turn int) error {
			return r.turn(ctx, []variant{s.eventVariant(nameDirect, s.direct, local(s.originPort))}, turn, calls/turnsPerRound)
		},
		func(turn int) error {
			return r.turn(ctx, []variant{s.eventVariant(nameUnread, s.app, unserved)}, turn, calls/turnsPerRound)
		},
		func(turn int) error {
			return s.whileRead(e, func() error {
				return r.turn(ctx, []variant{s.eventVariant(nameRead, s.app, unserved)}, turn, calls/turnsPerRound)
			})
		},
	}
	for i := range turnsPerRound {
		for _, j := range rand.Perm(len(turns)) {
			if err := turns[j](round*turnsPerRound + i); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *scene) eventVariant(name string, w *worker, to netip.AddrPort) variant {
	v := connectTo(name, w, to)
	v.section = sectionEvents
	return v
}

// whileRead reads the events on the other CPU until f returns.
func (s *scene) whileRead(e *engine.Engine, f func() error) error {
	events, err := e.Events()
	if err != nil {
		return err
	}
	read := make(chan error)
	go func() { read <- s.readAll(events) }()
	err = f()
	return errors.Join(err, events.Close(), <-read)
}

// readAll ends when the events are closed. The thread ends with it: it is
// locked still, and nothing else is to run on one CPU alone.
func (s *scene) readAll(events *engine.Events) error {
	runtime.LockOSThread()
	if err := pin(s.otherCPU); err != nil {
		return err
	}
	for {
		if _, err := events.Read(); errors.Is(err, os.ErrClosed) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
	}
}
