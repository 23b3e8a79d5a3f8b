//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/engine"
)

const (
	warmUps     = 5
	warmUp      = 100              // connections, one after the other
	upTimeout   = 45 * time.Second // the longest back-off, and some
	restTimeout = 30 * time.Second
)

// runner is one run, from the first process to the last.
type runner struct {
	opts    options
	scene   *scene
	daemon  *daemon
	parking *helper // it ends when nobody refers to it
	origin  *origin
	start   time.Time
	next    uint64 // number of a flow that was not tried yet
	before  map[string]files
	report  *report
}

func run(ctx context.Context, o options, plan []fault) (_ *report, err error) {
	debug.SetGCPercent(gcPercent)
	r := &runner{opts: o, report: &report{Seed: o.seed}}
	if r.scene, err = newScene(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.scene.close()) }()
	err = r.all(ctx, plan)
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("stop before the end: %w", context.Cause(ctx)) // what failed then is a consequence
	case err != nil && r.daemon != nil:
		return nil, fmt.Errorf("%w\nthe daemon and the proxies printed:\n%s", err, r.daemon.said())
	case err != nil:
		return nil, err
	}
	r.report.conclude()
	return r.report, nil
}

func (r *runner) all(ctx context.Context, plan []fault) error {
	if err := r.setUp(ctx); err != nil {
		return err
	}
	defer r.origin.close()
	if err := r.load(ctx, plan); err != nil {
		return err
	}
	if err := r.rest(ctx); err != nil {
		return err
	}
	return r.tearDown()
}

// setUp starts everything, warms it up, and notes how things are.
func (r *runner) setUp(ctx context.Context) (err error) {
	if err := r.scene.writeConfigs(); err != nil {
		return err
	}
	if err := r.scene.inside(func() error { r.origin, err = startOrigin(); return err }); err != nil {
		return err
	}
	if r.parking, err = r.scene.startHelper(parking, roleParking, listen4(parking)); err != nil {
		return err
	}
	if r.daemon, err = startDaemon(r.scene); err != nil {
		return err
	}
	if err := r.waitUp(ctx); err != nil {
		return err
	}
	r.before = make(map[string]files)
	for range warmUps {
		if err := r.oneByOne(ctx); err != nil {
			return err
		}
		now, err := r.files()
		if err != nil {
			return err
		}
		for name, f := range now {
			if was, ok := r.before[name]; ok {
				f = f.atRest(was)
			}
			r.before[name] = f
		}
	}
	return nil
}

func (r *runner) waitUp(ctx context.Context) error {
	var down string
	_, err := r.daemon.waitStatus(ctx, "all proxies to listen", upTimeout, func(s *control.Status) bool {
		for i := range s.Providers {
			if p := &s.Providers[i]; !p.Up() {
				down = p.Name + ": " + p.Problem
				return false
			}
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("%w; %s", err, down)
	}
	return nil
}

// oneByOne sends some connections when nothing is broken: none may fail, and
// each must pass the whole chain.
func (r *runner) oneByOne(ctx context.Context) error {
	before, err := r.daemon.status(ctx)
	if err != nil {
		return err
	}
	l, err := r.scene.startLoad(clientOrder{Seed: r.opts.seed, First: r.next, Connections: warmUp, AtOnce: 1})
	if err != nil {
		return err
	}
	<-l.done
	tally, failures := l.so()
	r.next = tally.Next
	if len(failures) > 0 {
		return fmt.Errorf("send %d connections when nothing is broken: %d failed: %+v", warmUp, len(failures), failures[0])
	}
	after, err := r.daemon.status(ctx)
	if err != nil {
		return err
	}
	for _, name := range chain {
		was, is := providerOf(before, name).Counters, providerOf(after, name).Counters
		if passed := is.Arrived - was.Arrived; passed != warmUp {
			return fmt.Errorf("send %d connections when nothing is broken: %d passed %s", warmUp, passed, name)
		}
	}
	return nil
}

func providerOf(s *control.Status, name string) *control.Provider {
	for i := range s.Providers {
		if s.Providers[i].Name == name {
			return &s.Providers[i]
		}
	}
	return &control.Provider{}
}

// load sends load and breaks things until the time is over.
func (r *runner) load(ctx context.Context, plan []fault) error {
	l, err := r.scene.startLoad(clientOrder{
		Seed: r.opts.seed, First: r.next, Connections: r.opts.connections, AtOnce: r.opts.atOnce, Long: r.opts.long,
	})
	if err != nil {
		return err
	}
	r.start = time.Now()
	loading, cancel := context.WithTimeout(ctx, r.opts.duration)
	defer cancel()
	in := &injector{scene: r.scene, daemon: r.daemon, log: os.Stderr, start: r.start}
	sampler := &sampler{scene: r.scene, daemon: r.daemon, load: l, start: r.start}
	injecting, sampling := make(chan struct{}), make(chan struct{})
	go func() { defer close(injecting); in.run(loading, plan) }()
	go func() { defer close(sampling); sampler.run(loading, r.opts.duration/wantedSamples) }()
	select {
	case <-loading.Done():
	case <-l.done:
	}
	cancel()
	<-injecting
	<-sampling
	r.report.Seconds = time.Since(r.start).Seconds()
	if err := l.stop(); err != nil {
		return fmt.Errorf("the client ended before its time: %w", err)
	}
	tally, failures := l.so()
	r.next = tally.Next
	r.report.addLoad(tally, failures, in.done, sampler.samples)
	return ctx.Err()
}

// rest lets everything come to rest and notes what is left.
func (r *runner) rest(ctx context.Context) error {
	r.report.count("daemons that died by themselves", r.daemon.unwantedDeaths())
	if err := r.daemon.revive(); err != nil {
		return err
	}
	if err := r.waitUp(ctx); err != nil {
		return err
	}
	// What Go pools, pipes for splice among it, goes with some collections of
	// garbage, and those come with work.
	for began := time.Now(); ; {
		if err := r.oneByOne(ctx); err != nil {
			return err
		}
		left, err := r.remains()
		if err != nil {
			return err
		}
		if left.none() || time.Since(began) > restTimeout {
			r.report.addLeft(left)
			break
		}
	}
	status, err := r.daemon.status(ctx)
	if err != nil {
		return err
	}
	r.report.addStatus(status)
	book, samples := r.origin.report()
	r.report.addOrigin(book, samples)
	return r.askRecorded(ctx)
}

// askRecorded asks the daemon about the flows that it wrote down.
func (r *runner) askRecorded(ctx context.Context) (err error) {
	if r.report.Recorded, err = r.daemon.count(ctx, "SELECT count(*) FROM flows"); err != nil {
		return err
	}
	twice, err := r.daemon.count(ctx, `SELECT count(*) FROM
		(SELECT 1 FROM hops WHERE kind = 'redirected' GROUP BY flow, provider HAVING count(*) > 1)`)
	r.report.count("flows that passed a provider twice", twice)
	return err
}

// tearDown ends the daemon, looks for what only an engine can see, and takes
// everything away, as an administrator does.
func (r *runner) tearDown() error {
	r.daemon.end(syscall.SIGTERM)
	flows, err := r.flowsLeft()
	if err != nil {
		return err
	}
	r.report.count("sockets with records left", flows)
	if out, err := r.daemon.off(); err != nil {
		return fmt.Errorf("waybill off: %w\n%s", err, out)
	}
	left := 0
	for _, path := range []string{stateDir, r.scene.dir("waybill")} {
		if _, err := os.Stat(path); err == nil {
			left++
		}
	}
	r.report.count("left by waybill off", left)
	return nil
}

func (r *runner) flowsLeft() (n int, err error) {
	e, err := engine.Open(engine.Options{Scope: r.scene.root.Dir, State: stateDir})
	if err != nil {
		return 0, err
	}
	err = r.scene.inside(func() error {
		flows, err := e.Flows()
		n = len(flows)
		return err
	})
	return n, errors.Join(err, e.Close())
}
