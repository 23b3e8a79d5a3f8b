//go:build linux

// Soak sends load through a chain of three proxies, breaks things meanwhile,
// and says whether any connection fared worse than what was broken explains.
// Run it as root, in this module:
//
//	go run ./bench/soak -duration 10m -seed 1
//
// It works in a cgroup, a network namespace and a mount namespace of its own
// and leaves nothing behind, not even if it is killed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// options of a run. With both limits the one that is reached first counts.
type options struct {
	duration    time.Duration
	connections int // short ones; 0: no limit
	seed        uint64
	atOnce      int
	long        int
	faults      string
	waybill     string
	json        bool
	plan        bool
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == childArg {
		exit(play(os.Args[2], os.Args[3:]))
	}
	var o options
	flag.DurationVar(&o.duration, "duration", time.Minute, "how long to send load")
	flag.IntVar(&o.connections, "connections", 0, "end after `N` short connections; 0: when the time is over")
	flag.Uint64Var(&o.seed, "seed", 1, "of the mix of flows and of the faults")
	flag.IntVar(&o.atOnce, "at-once", 64, "short connections open at once")
	flag.IntVar(&o.long, "long", 32, "long connections open at once")
	flag.StringVar(&o.faults, "faults", "all", "what to break: \"all\", \"none\", or some `KINDS` of those that -plan shows, with commas")
	flag.StringVar(&o.waybill, "waybill", "", "use this `PROGRAM`; default: built from this module")
	flag.BoolVar(&o.json, "json", false, "print one JSON object instead of the report")
	flag.BoolVar(&o.plan, "plan", false, "print what would be broken and when, and end")
	flag.Parse()
	exit(soak(o))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// errNotHeld: the report has said why.
var errNotHeld = errors.New("something that must be zero is not")

func soak(o options) error {
	switch {
	case flag.NArg() > 0:
		return fmt.Errorf("read arguments: unexpected %q", flag.Arg(0))
	case o.duration < minDuration || o.atOnce < 1 || o.long < 0 || o.connections < 0:
		return fmt.Errorf("read arguments: want a duration of at least %v, 1 connection at once, and nothing negative", minDuration)
	}
	faults, err := planFaults(o.seed, o.duration, o.faults)
	if err != nil {
		return err
	}
	if o.plan {
		printPlan(os.Stdout, faults)
		return nil
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("run as user %d: it attaches programs to a cgroup of its own and needs root", os.Geteuid())
	}
	if err := isolate(o.waybill); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	report, err := run(ctx, o, faults)
	if err != nil {
		return err
	}
	if o.json {
		err = report.write(os.Stdout)
	} else {
		report.print(os.Stdout)
	}
	if err == nil && !report.Held {
		err = errNotHeld
	}
	return err
}
