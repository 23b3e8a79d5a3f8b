//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/policyfile"
)

func newPolicyApply() *cobra.Command {
	var daemon daemonFlags
	cmd := &cobra.Command{
		Use:   "apply FILE",
		Short: "Put a policy in force",
		Long: `Put a policy in force, whole, and keep it for the next start of the daemon.
"-" is standard input. Each connection sees the old policy or the new one.

Problems and warnings are printed as waybill policy check does. If there is a
problem the old policy stays, and the exit status is 1.`,
		Example: "  sudo waybill policy apply /etc/waybill/policy.yaml\n  sudo waybill policy show | sudo waybill policy apply -",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return applyPolicy(cmd, daemon, args[0])
		},
	}
	daemon.register(cmd)
	return cmd
}

// applyReport is what --json prints.
type applyReport struct {
	policyReport
	Generation uint32 `json:"generation,omitempty"`
	Providers  int    `json:"providers"`
	Filters    int    `json:"filters"`
}

func applyPolicy(cmd *cobra.Command, daemon daemonFlags, file string) error {
	yaml, err := readPolicy(cmd.InOrStdin(), file)
	if err != nil {
		return err
	}
	// The daemon is in another directory.
	name, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	if file == "-" {
		file, name = "stdin", "stdin"
	}
	report := applyReport{policyReport: policyReport{Problems: []policyfile.Problem{}, Warnings: []policyfile.Problem{}}}
	applied, err := daemon.client().ApplyPolicy(cmd.Context(), name, yaml)
	var refused *control.Error
	switch {
	case err == nil:
		report.OK, report.Generation = true, applied.Generation
		report.Providers, report.Filters = applied.Providers, applied.Filters
		report.Warnings = inFile(file, applied.Warnings)
	case errors.As(err, &refused) && len(refused.Problems) > 0:
		report.Problems = inFile(file, refused.Problems)
		err = fmt.Errorf("apply policy: %s", count(len(refused.Problems), "problem"))
	default:
		return hinted(err)
	}
	return errors.Join(report.print(cmd, file, daemon.asJSON), err)
}

func (r *applyReport) print(cmd *cobra.Command, file string, asJSON bool) error {
	out := cmd.OutOrStdout()
	if asJSON {
		return printJSON(out, r)
	}
	var check policyCheck
	check.print(cmd.ErrOrStderr(), "", r.Problems)
	check.print(cmd.ErrOrStderr(), "warning: ", r.Warnings)
	if !r.OK {
		return nil
	}
	_, err := fmt.Fprintf(out, "%s: in force: %s, %s\n", file, count(r.Providers, "provider"), count(r.Filters, "filter"))
	return err
}

// inFile gives the file the name by which its reader knows it.
func inFile(file string, problems []policyfile.Problem) []policyfile.Problem {
	named := make([]policyfile.Problem, len(problems))
	for i, p := range problems {
		p.File = file
		named[i] = p
	}
	return named
}

func newPolicyShow() *cobra.Command {
	var daemon daemonFlags
	cmd := &cobra.Command{
		Use:     "show",
		Short:   "Print the policy in force",
		Long:    `Print the policy in force as it was written. With --json, also its name and when it was applied.`,
		Example: "  sudo waybill policy show > policy.yaml\n  sudo waybill policy show --json | jq .applied",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			policy, err := daemon.client().Policy(cmd.Context())
			if err != nil {
				return hinted(err)
			}
			out := cmd.OutOrStdout()
			if daemon.asJSON {
				return printJSON(out, policy)
			}
			_, err = io.WriteString(out, policy.YAML)
			return err
		},
	}
	daemon.register(cmd)
	return cmd
}
