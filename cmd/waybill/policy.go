//go:build linux

package main

import "github.com/spf13/cobra"

func newPolicy() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check policies, explain them, and put them in force",
	}
	cmd.AddCommand(newPolicyApply(), newPolicyCheck(), newPolicyExplain(), newPolicySchema(), newPolicyShow())
	return cmd
}
