//go:build linux

package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/waybill-net/waybill/internal/control"
)

func newStatus() *cobra.Command {
	var daemon daemonFlags
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the daemon does",
		Long: `Show what the daemon does: since when, for which programs, by which policy, and
how its providers fare.

The exit status is 0 if the daemon runs, also when a provider is down.`,
		Example: "  sudo waybill status\n  sudo waybill status --json | jq .counters",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := daemon.client().Status(cmd.Context())
			if err != nil {
				return hinted(err)
			}
			out := cmd.OutOrStdout()
			if daemon.asJSON {
				return printJSON(out, status)
			}
			return showStatus(out, status, newPaint(out))
		},
	}
	daemon.register(cmd)
	return cmd
}

func showStatus(out io.Writer, s *control.Status, p paint) error {
	fmt.Fprintf(out, "%s, pid %d, up %s\n\n", p.bold("waybill "+s.Version), s.PID, age(s.Started))
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "scope\t%s\n", s.Scope)
	fmt.Fprintf(table, "state\t%s\n", stateText(s))
	fmt.Fprintf(table, "policy\t%s\n", policyText(s))
	fmt.Fprintf(table, "connections\t%s\n", connectionsText(s.Counters))
	fmt.Fprintf(table, "now\t%s, %s\n", count(s.InFlight, "connection")+" in flight", count(s.Runs, "run"))
	if err := table.Flush(); err != nil {
		return err
	}
	if err := showSummary(out, s.Providers, p); err != nil {
		return err
	}
	for _, condition := range s.Unmatched {
		fmt.Fprintf(out, "%s %s\n", p.yellow("matches nothing:"), printable(condition))
	}
	for _, warning := range s.Warnings {
		fmt.Fprintf(out, "%s %s\n", p.yellow("warning:"), printable(warning))
	}
	return nil
}

func stateText(s *control.Status) string {
	switch {
	case s.State == "":
		return "none: redirection ends with the daemon"
	case s.Adopted:
		return s.State + ", adopted"
	}
	return s.State
}

func policyText(s *control.Status) string {
	if s.Policy.Name == "" {
		return "none"
	}
	text := fmt.Sprintf("%s: %s, %s, applied %s", printable(s.Policy.Name),
		count(len(s.Providers), "provider"), count(s.Policy.Filters, "filter"), s.Policy.Applied.Local().Format(time.DateTime))
	if s.Policy.Mode == control.Shadow {
		text += ", in shadow mode"
	}
	return text
}

func connectionsText(counters map[string]uint64) string {
	text := fmt.Sprintf("%d passed, %d redirected, %d refused", counters["passed"], counters["redirected"],
		counters["blocked"]+counters["forbidden"]+counters["looped"])
	if n := counters["shadowed"]; n > 0 {
		text += fmt.Sprintf(", %d in shadow", n)
	}
	return text
}

// showSummary has a line for each provider.
func showSummary(out io.Writer, providers []control.Provider, p paint) error {
	if len(providers) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	const problemWidth = 40 // of 100 columns, when the others have as much as they mostly need
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PROVIDER\tREDIRECTED\tBYPASSED\tREFUSED\tSTATE")
	for i := range providers {
		provider := &providers[i]
		state := p.green("up")
		if !provider.Up() {
			state = p.red("down")
		}
		if provider.Mode == control.Shadow {
			state += ", shadow"
		}
		if provider.Problem != "" {
			state += ": " + cut(printable(provider.Problem), problemWidth)
		}
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%s\n", cut(provider.Name, 24), provider.Counters.Redirected,
			provider.Counters.Bypassed, provider.Counters.Blocked+provider.Counters.Forbidden, state)
	}
	return table.Flush()
}

// age is how long ago something was, in two units at most.
func age(since time.Time) string {
	d := time.Since(since)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(d/time.Second, 0))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%02dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

// paint colours text, or leaves it.
type paint struct{ on bool }

func newPaint(out io.Writer) paint { return paint{wantsColour(out)} }

func (p paint) in(code int, s string) string {
	if !p.on {
		return s
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", code, s)
}

func (p paint) bold(s string) string   { return p.in(1, s) }
func (p paint) red(s string) string    { return p.in(31, s) }
func (p paint) green(s string) string  { return p.in(32, s) }
func (p paint) yellow(s string) string { return p.in(33, s) }

// list is the elements of a list in words, or what stands for none.
func list(elements []string, none string) string {
	if len(elements) == 0 {
		return none
	}
	return printable(strings.Join(elements, ", "))
}
