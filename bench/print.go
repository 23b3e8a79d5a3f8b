//go:build linux

package main

import (
	"fmt"
	"io"
	"strings"
)

const explanation = `
Nanoseconds per call. median: of the turns' medians; p10, p99: of all calls. x and added: compared
with the first row in the same turn; the median of all turns, and its 95 % interval.
`

// print writes the table for people, at most 100 columns wide.
func (r *Report) print(w io.Writer) {
	m := r.Machine
	fmt.Fprintf(w, "%s, %d cores, %s, Linux %s", m.CPU, m.Cores, m.Arch, m.Kernel)
	if m.Commit != "" {
		fmt.Fprintf(w, ", commit %s", m.Commit)
	}
	fmt.Fprintf(w, "\n%d rounds of %d turns of %d calls each, in %.0f s\n", r.Rounds, turnsPerRound, r.Calls/turnsPerRound, r.Seconds)
	for _, note := range r.Notes {
		fmt.Fprintln(w, note)
	}
	fmt.Fprint(w, explanation)
	for _, s := range r.Sections {
		s.print(w)
	}
	if len(r.Hooks) > 0 {
		r.printHooks(w)
	}
	if len(r.Growth) > 0 {
		printGrowth(w, r.Growth)
		printApplies(w, r.Applies)
	}
}

func (s section) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s\n", s.Title)
	fmt.Fprintf(w, "  %-29s%7s%7s%9s%6s%8s%17s  goal\n", "", "median", "p10", "p99", "x", "added", "")
	for i, r := range s.Rows {
		added, spread := fmt.Sprintf("%+.0f", r.Added), fmt.Sprintf("[%+.0f, %+.0f]", r.Low, r.High)
		if i == 0 {
			added, spread = "", ""
		}
		line := fmt.Sprintf("  %-29s%7.0f%7.0f%9.0f%6.2f%8s%17s  %s",
			r.Name, r.Median, r.P10, r.P99, r.Ratio, added, spread, r.Goal)
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
}

// String says what the goal is and whether it is met; nothing without a goal.
func (g *goal) String() string {
	if g == nil {
		return ""
	}
	switch {
	case g.AddedNS > 0:
		return fmt.Sprintf("≤%+.0f %s", g.AddedNS, g.Verdict)
	case g.Ratio > 0:
		return fmt.Sprintf("≤%.2f %s", g.Ratio, g.Verdict)
	}
	return fmt.Sprintf("≤%.0f %s", g.MedianNS, g.Verdict)
}

func (r *Report) printHooks(w io.Writer) {
	fmt.Fprint(w, "\nthe hooks alone, by the kernel's own clock, the reading of which is in the figures\n")
	fmt.Fprintf(w, "  %-42s%-12s%10s%14s%14s\n", "", "hook", "runs", "ns per run", "ns per call")
	for _, h := range r.Hooks {
		fmt.Fprintf(w, "  %-42s%-12s%10.2f%14.0f%14.0f\n", h.Section+": "+h.Name, h.Hook, h.Runs, h.PerRun, h.PerCall)
	}
}
