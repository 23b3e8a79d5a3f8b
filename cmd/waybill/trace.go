//go:build linux

package main

import (
	"github.com/spf13/cobra"

	"github.com/waybill-net/waybill/internal/flow"
)

func newTrace() *cobra.Command {
	var daemon daemonFlags
	cmd := &cobra.Command{
		Use:   "trace FLOW",
		Short: "Show the whole chain of one flow",
		Long: `Show the whole chain of one flow, from the application to the destination: who
redirected it and why, who was skipped and why, and what each step took.

FLOW is an id from waybill flows. Who is not root sees his own flows only.`,
		Example: "  sudo waybill trace 00f3a9c1d2e4b567\n" +
			`  sudo waybill trace "$(sudo waybill flows --json --limit 1 | jq -r .id)"`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var id flow.ID
			if err := id.UnmarshalText([]byte(args[0])); err != nil {
				return &hintError{err, "waybill flows lists the flows and their ids"}
			}
			f, err := daemon.client().Flow(cmd.Context(), id)
			if err != nil {
				return hinted(err)
			}
			out := cmd.OutOrStdout()
			if daemon.asJSON {
				return printJSON(out, f)
			}
			f.Start = f.Start.Local()
			return f.Draw(out, flow.DrawOptions{Width: widthOf(out), Color: wantsColour(out)})
		},
	}
	daemon.register(cmd)
	return cmd
}
