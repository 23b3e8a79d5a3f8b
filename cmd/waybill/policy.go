package main

import "github.com/spf13/cobra"

func newPolicy() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check policy files",
	}
	cmd.AddCommand(newPolicyCheck(), newPolicySchema())
	return cmd
}
