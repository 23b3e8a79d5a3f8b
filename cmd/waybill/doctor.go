package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/waybill-net/waybill/internal/doctor"
)

// showFindings fails if there is a problem among them.
func showFindings(cmd *cobra.Command, findings []doctor.Finding, asJSON bool) (err error) {
	out := cmd.OutOrStdout()
	if asJSON {
		err = json.NewEncoder(out).Encode(struct {
			Findings []doctor.Finding `json:"findings"`
		}{findings})
	} else {
		err = doctor.Show(out, findings, wantsColour(out))
	}
	if err != nil {
		return err
	}
	if doctor.Problems(findings) > 0 {
		return fmt.Errorf("something is in waybill's way: %s", doctor.Conclude(findings))
	}
	return nil
}

// wantsColour is true on a terminal, unless NO_COLOR is set: see
// https://no-color.org.
func wantsColour(out io.Writer) bool {
	f, ok := out.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(f.Fd()))
}
