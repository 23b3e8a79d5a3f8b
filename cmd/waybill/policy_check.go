//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/waybill-net/waybill/internal/cgroup"
	"github.com/waybill-net/waybill/internal/policyfile"
)

func newPolicyCheck() *cobra.Command {
	var c policyCheck
	cmd := &cobra.Command{
		Use:   "check FILE...",
		Short: "Check policy files and say what to change",
		Long: `Check policy files without applying them. "-" is standard input.

Every problem is printed with its line and column and what to write instead.
What is allowed but hardly meant is a warning. Users are looked up on this host.

The exit status is 0 if there are no problems, and with --strict no warnings.`,
		Example: "  waybill policy check /etc/waybill/policy.yaml\n  waybill policy check --json - < policy.yaml | jq .problems",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			return c.run(cmd, files)
		},
	}
	cmd.Flags().BoolVar(&c.asJSON, "json", false, "print one JSON object instead")
	cmd.Flags().BoolVar(&c.strict, "strict", false, "take warnings for problems")
	return cmd
}

func newPolicySchema() *cobra.Command {
	return &cobra.Command{
		Use:     "schema",
		Short:   "Print the JSON Schema of policy files, for editors",
		Example: "  waybill policy schema > policy.schema.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(policyfile.Schema())
			return err
		},
	}
}

type policyCheck struct {
	asJSON bool
	strict bool
}

// policyReport is what --json prints, of all files together.
type policyReport struct {
	OK       bool                 `json:"ok"`
	Problems []policyfile.Problem `json:"problems"`
	Warnings []policyfile.Problem `json:"warnings"`
}

func (c policyCheck) run(cmd *cobra.Command, files []string) error {
	// Not null in JSON.
	report := policyReport{Problems: []policyfile.Problem{}, Warnings: []policyfile.Problem{}}
	for _, name := range files {
		if err := c.check(cmd, name, &report); err != nil {
			return err
		}
	}
	n := len(report.Problems)
	if c.strict {
		n += len(report.Warnings)
	}
	report.OK = n == 0
	if c.asJSON {
		if err := json.NewEncoder(cmd.OutOrStdout()).Encode(report); err != nil {
			return err
		}
	}
	switch n {
	case 0:
		return nil
	case 1:
		return errors.New("check policy: 1 problem")
	}
	return fmt.Errorf("check policy: %d problems", n)
}

// check adds what it finds in one file to the report, and prints it unless
// that is done as JSON. Its error is that the file can not be read at all.
func (c policyCheck) check(cmd *cobra.Command, name string, report *policyReport) error {
	data, err := readPolicy(cmd.InOrStdin(), name)
	if err != nil {
		return err
	}
	if name == "-" {
		name = "stdin"
	}
	// Without cgroup v2 on this host no path can begin with its directory.
	root, _ := cgroup.Root()
	file, err := policyfile.Parse(name, data, policyfile.Options{CgroupRoot: root})
	var broken *policyfile.Error
	switch {
	case errors.As(err, &broken):
		report.Problems = append(report.Problems, broken.Problems...)
		c.print(cmd.ErrOrStderr(), "", broken.Problems)
		return nil
	case err != nil:
		return err
	}
	report.Warnings = append(report.Warnings, file.Warnings...)
	c.print(cmd.ErrOrStderr(), "warning: ", file.Warnings)
	if !c.asJSON && !(c.strict && len(file.Warnings) > 0) {
		fmt.Fprintf(cmd.OutOrStdout(), "%s: ok: %s, %s\n", name,
			count(len(file.Policy.Providers), "provider"), count(len(file.Policy.Filters), "filter"))
	}
	return nil
}

func (c policyCheck) print(w io.Writer, label string, problems []policyfile.Problem) {
	if c.asJSON {
		return
	}
	for _, p := range problems {
		fmt.Fprintln(w, p.Text(label))
	}
}

func readPolicy(stdin io.Reader, name string) ([]byte, error) {
	var data []byte
	var err error
	if name == "-" {
		data, err = io.ReadAll(stdin)
	} else {
		data, err = os.ReadFile(name)
	}
	var failed *fs.PathError
	if errors.As(err, &failed) {
		err = failed.Err // its message would name the file again
	}
	if err != nil {
		return nil, fmt.Errorf("read policy %s: %w", name, err)
	}
	return data, nil
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
