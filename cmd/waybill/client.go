//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/waybill-net/waybill/internal/control"
)

// daemonFlags are those of every command that asks the daemon.
type daemonFlags struct {
	socket string
	asJSON bool
}

func (f *daemonFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.socket, "socket", control.DefaultSocket, "the daemon's `socket`")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print JSON instead")
}

func (f *daemonFlags) client() control.Client { return control.Client{Socket: f.socket} }

// hinted adds what the daemon says to do about an error.
func hinted(err error) error {
	var e *control.Error
	if errors.As(err, &e) && e.Hint != "" {
		return &hintError{err, e.Hint}
	}
	return err
}

func printJSON(out io.Writer, v any) error { return json.NewEncoder(out).Encode(v) }

// widthOf returns the columns of a terminal, 0 for what is none.
func widthOf(out io.Writer) int {
	f, ok := out.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// printable is text of another process: it may not move the cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// cut shortens text to so many characters.
func cut(s string, width int) string {
	runes := []rune(s)
	if len(runes) <= width {
		return s
	}
	return string(runes[:max(width-1, 0)]) + "…"
}
