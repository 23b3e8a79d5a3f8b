//go:build linux

package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"
)

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// print writes the report for people.
func (r *report) print(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(format string, args ...any) { fmt.Fprintf(table, format+"\n", args...) }
	row("\nSeed %d, %s.", r.Seed, time.Duration(r.Seconds*float64(time.Second)).Round(time.Second/10))
	row("")
	row("FLOWS\tTRIED\tARRIVED")
	for _, k := range []kind{short, bulk, long} {
		row("%s\t%d\t%d", k, r.Tried[k], r.Arrived[k])
	}
	row("all\t%d\t%d\t%.0f a second; the slowest short one took %.0f ms", sum(r.Tried), sum(r.Arrived), r.Rate, r.Slowest)
	row("recorded by the daemon\t%d", r.Recorded)
	r.printFaults(row)
	r.printCounters(row)
	r.printSamples(row)
	r.printLeft(row)
	row("")
	row("MUST BE ZERO\t")
	for _, c := range r.Checks {
		bad := ""
		if c.N != 0 {
			bad = "\t<- NOT ZERO"
		}
		row("%s\t%d%s", c.Name, c.N, bad)
	}
	table.Flush()
	r.printDetails(w)
}

func (r *report) printFaults(row func(string, ...any)) {
	type line struct{ n, refused, reset, ended int }
	lines := make(map[string]*line)
	for _, f := range r.Faults {
		name := string(f.Kind) + " " + f.Target
		if lines[name] == nil {
			lines[name] = &line{}
		}
		l := lines[name]
		l.n++
		l.refused += f.Failures[wasRefused]
		l.reset += f.Failures[wasReset]
		l.ended += f.Failures[wasEnded]
	}
	row("")
	row("FAULT\tTIMES\tREFUSED\tRESET\tENDED")
	for _, name := range sortedKeys(lines) {
		row("%s\t%d\t%d\t%d\t%d", name, lines[name].n, lines[name].refused, lines[name].reset, lines[name].ended)
	}
}

func (r *report) printCounters(row func(string, ...any)) {
	row("")
	row("PROVIDER\tREDIRECTED\tARRIVED\tBYPASSED\tINHERITED\tRESET")
	for _, p := range r.Providers {
		row("%s\t%d\t%d\t%d\t%d\t%d", p.Name, p.Redirected, p.Arrived, p.Bypassed, p.Inherited, p.Reset)
	}
	row("")
	row("COUNTER\t")
	for _, name := range sortedKeys(r.Counters) {
		if n := r.Counters[name]; n > 0 {
			row("%s\t%d", name, n)
		}
	}
}

func (r *report) printSamples(row func(string, ...any)) {
	row("")
	row("AFTER\tFLOWS\tIN FLIGHT\tDAEMON\tFIRST\tMIDDLE\tLAST\tMAPS\tCHARGED (MB)")
	every := max(1, len(r.Samples)/12)
	for i := every - 1; i < len(r.Samples); i += every {
		s := &r.Samples[i]
		row("%s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s", s.At.Round(time.Second), s.Flows, s.InFlight,
			megabytes(s.Memory[daemonName]), megabytes(s.Memory["first"]), megabytes(s.Memory["middle"]), megabytes(s.Memory["last"]),
			megabytes(s.Maps), megabytes(uint64(s.Charged)))
	}
}

func megabytes(n uint64) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", float64(n)/1e6)
}

func (r *report) printLeft(row func(string, ...any)) {
	row("")
	row("DESCRIPTORS\tBEFORE\tAFTER")
	for _, name := range sortedKeys(r.Left.After) {
		row("%s\t%s\t%s", name, r.Left.Before[name], r.Left.After[name])
	}
}

const shownDetails = 20

func (r *report) printDetails(w io.Writer) {
	for i, f := range r.Unexplained {
		if i == shownDetails {
			fmt.Fprintf(w, "and %d more\n", len(r.Unexplained)-i)
			break
		}
		fmt.Fprintf(w, "unexplained: flow %d (%s) %s -> %s, round %d, after %v: %s: %s\n",
			f.ID, f.Kind, f.Local, f.Dst, f.Round, f.End.Sub(f.Start).Round(time.Millisecond), f.What, f.Error)
	}
	for _, d := range r.Details {
		fmt.Fprintln(w, "origin:", d)
	}
	for _, name := range sortedKeys(r.Left.Names) {
		fmt.Fprintf(w, "descriptors of %s: %q\n", name, r.Left.Names[name])
	}
	for _, s := range r.Left.Sockets[:min(shownDetails, len(r.Left.Sockets))] {
		fmt.Fprintln(w, "socket left:", s)
	}
	if r.Held {
		fmt.Fprintln(w, "\nheld: all that must be zero is.")
	} else {
		fmt.Fprintln(w, "\nNOT held: see above.")
	}
}
