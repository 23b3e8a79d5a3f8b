//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/waybill-net/waybill/internal/demo"
	"github.com/waybill-net/waybill/internal/engine"
)

func newDemo() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show two proxies in a loop, then in a chain, then with one of them dead",
		Long: `Show what waybill is for, on one screen: two proxies that redirect each other
until a bound stops them; the same two in a chain; and the chain when one dies.

It works in a cgroup and a network namespace of its own, touches nothing else
on the machine, and leaves nothing behind. It needs root.

The exit status is 0 only if everything went as waybill promises.`,
		Example: "  sudo waybill demo\n  sudo waybill demo --json | jq .chain",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDemo(cmd, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object instead")
	return cmd
}

var errNotHeld = errors.New("the demo did not go as promised")

func runDemo(cmd *cobra.Command, asJSON bool) error {
	out := cmd.OutOrStdout()
	show := func(int, *demo.Result) {}
	if !asJSON {
		show = demo.Show(out)
	}
	r, err := demo.Run(cmd.Context(), show)
	if err != nil {
		return withHint(err)
	}
	if asJSON {
		if err := json.NewEncoder(out).Encode(r); err != nil {
			return err
		}
	} else {
		r.Conclude(out)
	}
	if !r.Held() {
		return errNotHeld
	}
	return nil
}

func withHint(err error) error {
	var missing *engine.FeatureError
	switch {
	case errors.As(err, &missing):
		return &hintError{err, "waybill needs Linux 6.1 or later, as in Debian 12"}
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		return &hintError{err, "run it as root"}
	}
	return err
}

func newDemoProxy() *cobra.Command {
	var maxConns int
	cmd := &cobra.Command{
		Use:    "demo-proxy NAME ADDRESS...",
		Short:  "Run one of the demo's proxies",
		Hidden: true,
		Args:   cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return demo.RunProxy(cmd.Context(), args[0], args[1:], maxConns, cmd.OutOrStdout())
		},
	}
	cmd.Flags().IntVar(&maxConns, "max-conns", 0, "connections open at once; 0: no bound")
	return cmd
}

func newDemoClient() *cobra.Command {
	var n int
	cmd := &cobra.Command{
		Use:    "demo-client URL",
		Short:  "Run the demo's client",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return demo.RunClient(cmd.Context(), args[0], n, cmd.OutOrStdout())
		},
	}
	cmd.Flags().IntVarP(&n, "requests", "n", 1, "requests to make")
	return cmd
}
