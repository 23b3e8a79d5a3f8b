package main

import (
	"context"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/doctor"
)

func newDoctor() *cobra.Command {
	var (
		opts   doctor.Options
		socket string
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what could get in waybill's way on this host",
		Long: `Look for what could get in waybill's way on this host: what the kernel lacks,
programs of others on the same hooks, rules of the packet filter, products that
are known to meddle, proxies that are in no provider. Each finding says what it
means and what to do. Nothing is changed.

It looks at the network namespace in which it runs. It works without root, and
says what it could not see.

The exit status is 1 if there is a problem, with which waybill can not work, or
if nothing could be examined; otherwise 0.`,
		Example: "  sudo waybill doctor\n  sudo waybill doctor --scope /sys/fs/cgroup/user.slice\n" +
			`  sudo waybill doctor --json | jq '.findings[] | select(.level != "ok")'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Providers = providerAddresses(cmd.Context(), socket)
			findings, err := doctor.Examine(cmd.Context(), opts)
			if err != nil {
				return err
			}
			return showFindings(cmd, findings, asJSON)
		},
	}
	cmd.Flags().StringVar(&opts.Scope, "scope", "", "directory of the cgroup that waybill covers (default the root of cgroup v2)")
	cmd.Flags().StringVar(&socket, "socket", control.DefaultSocket, "`path` of the daemon's socket")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object instead")
	return cmd
}

// providerAddresses asks the daemon, if there is one that answers us, where
// the proxies of its providers listen.
func providerAddresses(ctx context.Context, socket string) []netip.AddrPort {
	status, err := control.Client{Socket: socket}.Status(ctx)
	if err != nil {
		return nil
	}
	var addresses []netip.AddrPort
	for _, p := range status.Providers {
		for _, a := range p.Addresses {
			if a.Protocol == "" {
				addresses = append(addresses, a.Address)
			}
		}
	}
	return addresses
}
