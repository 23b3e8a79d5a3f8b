//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/spf13/cobra"

	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/flow"
	"github.com/waybill-net/waybill/internal/flowstore"
)

// flowsFlags are the flags of waybill flows as they are written.
type flowsFlags struct {
	daemonFlags
	follow bool
	since  string
	query  flowstore.Query
	sql    string
}

func newFlows() *cobra.Command {
	var f flowsFlags
	cmd := &cobra.Command{
		Use:   "flows",
		Short: "List what happened to connections",
		Long: `List the flows that the daemon has kept: connections of applications that a
provider wanted, with those that proxies opened for them. The newest is last.

VIA has the providers whose proxies a flow went through; "!" stands before one
that was skipped because it was down. Who is not root sees his own flows only.

With --follow a line is printed when a flow begins, and when its outcome changes.

With --sql anything can be asked: docs/flows.md describes the tables.`,
		Example: `  sudo waybill flows --since 10m --program curl
  sudo waybill flows -f --provider dlp
  sudo waybill flows --json | jq 'select(.outcome == "refused")'
  sudo waybill flows --sql 'SELECT time, program, via FROM chains LIMIT 5'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return hinted(f.run(cmd)) },
	}
	f.register(cmd)
	flags := cmd.Flags()
	flags.BoolVarP(&f.follow, "follow", "f", false, "print what happens from now on")
	flags.StringVar(&f.since, "since", "", "flows that started then or later: how long ago, as 90m, or a `time`, as 2026-08-02T18:41:58Z")
	flags.IntVar(&f.query.Limit, "limit", 50, "as many at most, the newest")
	flags.StringVar(&f.query.Program, "program", "", "flows of this `program`: its path or its name")
	flags.StringVar(&f.query.Provider, "provider", "", "flows that this `provider` redirected, forbade or refused")
	flags.StringVar(&f.sql, "sql", "", "ask this `query` instead")
	for _, other := range []string{"since", "limit"} {
		cmd.MarkFlagsMutuallyExclusive("follow", other)
	}
	for _, other := range []string{"follow", "since", "limit", "program", "provider"} {
		cmd.MarkFlagsMutuallyExclusive("sql", other)
	}
	return cmd
}

func (f *flowsFlags) run(cmd *cobra.Command) error {
	out := cmd.OutOrStdout()
	switch {
	case f.sql != "":
		table, err := f.client().SQL(cmd.Context(), f.sql)
		if err != nil {
			return err
		}
		return f.printTable(out, table)
	case f.follow:
		return f.printChanges(cmd.Context(), out)
	}
	if f.query.Limit < 1 {
		return fmt.Errorf("read --limit %d: want 1 or more", f.query.Limit)
	}
	if f.since != "" {
		var err error
		if f.query.Since, err = control.ParseTime(f.since, time.Now()); err != nil {
			return &hintError{fmt.Errorf("read --since %q", f.since), "write how long ago, as 90m, or a time, as 2026-08-02T18:41:58Z"}
		}
	}
	flows, err := f.client().Flows(cmd.Context(), f.query)
	if err != nil {
		return err
	}
	slices.Reverse(flows)
	return f.print(out, flows)
}

func (f *flowsFlags) print(out io.Writer, flows []flow.Flow) error {
	if f.asJSON {
		for i := range flows {
			if err := printJSON(out, &flows[i]); err != nil {
				return err
			}
		}
		return nil
	}
	return flow.Table(out, local(flows), flow.TableOptions{Width: widthOf(out), Color: wantsColour(out)})
}

// local is for people: they think in the time of their host.
func local(flows []flow.Flow) []flow.Flow {
	for i := range flows {
		flows[i].Start = flows[i].Start.Local()
	}
	return flows
}

// remembered is of how many flows it is known what was printed last.
const remembered = 8192

func (f *flowsFlags) printChanges(ctx context.Context, out io.Writer) error {
	follower, err := f.client().Follow(ctx, f.query)
	if err != nil {
		return err
	}
	defer follower.Close()
	printed, err := lru.New[flow.ID, flow.Outcome](remembered)
	if err != nil {
		return err
	}
	for {
		change, err := follower.Next()
		switch {
		case ctx.Err() != nil:
			return nil // it was told to stop
		case errors.Is(err, io.EOF):
			return errors.New("follow flows: the daemon has ended")
		case err != nil:
			return err
		}
		if last, known := printed.Get(change.ID); known && last == change.Outcome {
			continue
		}
		printed.Add(change.ID, change.Outcome)
		if err := f.printChange(out, change); err != nil {
			return err
		}
	}
}

// printChange prints one line of a table.
func (f *flowsFlags) printChange(out io.Writer, change *flow.Flow) error {
	if f.asJSON {
		return printJSON(out, change)
	}
	var table bytes.Buffer
	err := flow.Table(&table, local([]flow.Flow{*change}), flow.TableOptions{Width: widthOf(out), Color: wantsColour(out)})
	if err != nil {
		return err
	}
	_, line, _ := bytes.Cut(table.Bytes(), []byte("\n")) // without the header
	_, err = out.Write(line)
	return err
}

func (f *flowsFlags) printTable(out io.Writer, t *control.Table) error {
	if f.asJSON {
		return printJSON(out, t)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for i, name := range t.Columns {
		fmt.Fprint(w, tab(i), printable(name))
	}
	fmt.Fprintln(w)
	for _, row := range t.Rows {
		for i, value := range row {
			text := ""
			if value != nil {
				text = printable(fmt.Sprint(value))
			}
			fmt.Fprint(w, tab(i), text)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// tab stands before every column but the first.
func tab(column int) string {
	if column == 0 {
		return ""
	}
	return "\t"
}
