package main

import (
	"github.com/spf13/cobra"

	"github.com/waybill-net/waybill/internal/doctor"
)

func newDoctor() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what redirects connections on this host, and what a proxy lacks",
		Long: `Say what redirects connections on this host: callouts of the Windows Filtering
Platform, and products that are known to. Say what a proxy lacks. Each finding
says what it means and what to do. Nothing is changed.

It works without an administrator's rights, and says what it could not see.

The exit status is 1 if there is a problem, with which a proxy can not work;
otherwise 0.`,
		Example: "  waybill doctor\n  waybill doctor --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings, err := doctor.Examine(cmd.Context())
			if err != nil {
				return err
			}
			return showFindings(cmd, findings, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object instead")
	return cmd
}
