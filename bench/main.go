//go:build linux

// Bench measures what waybill costs on this machine: a connect() that is not
// redirected, one that is, the socket options that carry the records, and what
// all that costs when a policy has many filters.
// Run it as root:
//
//	go run ./bench
//
// It makes a cgroup and two network namespaces of its own, attaches to nothing
// else, and leaves nothing behind, not even if it is killed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// timeout ends a run in which a worker hangs.
const timeout = 30 * time.Minute

// minCalls leaves something to take the median of, in every turn.
const minCalls = turnsPerRound * chunk

type options struct {
	rounds int
	calls  int
	json   string
	only   string
}

func (o options) measures(what string) bool { return o.only == "" || o.only == what }

// What can be measured on its own.
const (
	onlyCost    = "cost"
	onlyPackets = "packets"
	onlyGrowth  = "growth"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == childArg {
		runChild(os.Args[2:])
		return
	}
	var opts options
	flag.IntVar(&opts.rounds, "rounds", 20, fmt.Sprintf("rounds; in each, every variant gets %d turns", turnsPerRound))
	flag.IntVar(&opts.calls, "n", 200, "measured calls of a variant per round")
	flag.StringVar(&opts.json, "json", "", "write the figures to `FILE`, too")
	flag.StringVar(&opts.only, "only", "", "measure `WHAT`: \"cost\", of a connection and an option, \"packets\", of UDP, or \"growth\" with the number of filters; default all")
	flag.Parse()
	if err := bench(opts); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(opts options) error {
	switch {
	case os.Geteuid() != 0:
		return fmt.Errorf("run as user %d: it attaches programs to a cgroup of its own and needs root", os.Geteuid())
	case flag.NArg() > 0:
		return fmt.Errorf("read arguments: unexpected %q", flag.Arg(0))
	case opts.only != "" && opts.only != onlyCost && opts.only != onlyPackets && opts.only != onlyGrowth:
		return fmt.Errorf("read arguments: -only %q, want %q, %q or %q", opts.only, onlyCost, onlyPackets, onlyGrowth)
	case opts.rounds < 1 || opts.calls < minCalls:
		return fmt.Errorf("read arguments: %d rounds of %d calls, want at least 1 of %d", opts.rounds, opts.calls, minCalls)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := enterNamespace(); err != nil {
		return err
	}

	began := time.Now()
	report, err := measure(ctx, opts)
	if ctx.Err() != nil {
		return fmt.Errorf("stop before the end: %w", context.Cause(ctx)) // what failed then is a consequence
	}
	if err != nil {
		return err
	}
	report.Seconds = time.Since(began).Seconds()
	report.print(os.Stdout)
	if opts.json == "" {
		return nil
	}
	return report.write(opts.json)
}

// enterNamespace puts this thread, and so the workers that it starts, into a
// network namespace of its own: the machine's firewall and its other
// connections would weigh on every figure. The goroutine keeps the thread.
func enterNamespace() error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	return setUpLoopback()
}

// measure sets the scene, lets every variant have its turns, and works out
// the figures.
func measure(ctx context.Context, opts options) (_ *Report, err error) {
	s, err := newScene(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := s.close(); err == nil {
			err = cerr
		}
	}()
	report := newReport(opts, s.notes)
	if opts.measures(onlyCost) {
		results, err := s.costs(ctx, opts)
		if err != nil {
			return nil, err
		}
		report.addCosts(results)
		if report.Hooks, err = s.hooks(ctx, opts.calls/chunk*chunk); err != nil {
			return nil, err
		}
	}
	if opts.measures(onlyPackets) {
		results, err := s.packets(ctx, opts)
		if err != nil {
			return nil, err
		}
		report.addCosts(results)
	}
	if opts.measures(onlyGrowth) {
		g, err := s.growth(ctx, opts)
		if err != nil {
			return nil, err
		}
		report.Growth, report.Applies = g.rows(), g.applies()
	}
	return report, nil
}
