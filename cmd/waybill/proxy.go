package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/waybill-net/waybill/internal/dns"
	"github.com/waybill-net/waybill/internal/inspect"
)

// proxyFlags are the flags of waybill proxy as they are written.
type proxyFlags struct {
	block     []string
	blockName []string
	answer    string
	names     namesFlag
	maxFlows  int
	quiet     bool
}

func newProxy() *cobra.Command {
	var f proxyFlags
	cmd := &cobra.Command{
		Use:     "proxy [flags] ADDRESS:PORT...",
		Short:   "Run waybill's own proxy, for a provider of a policy",
		Long:    aboutProxy,
		Example: proxyExamples,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &hintError{errors.New("proxy: no address given"), "waybill proxy 127.0.0.1:7001 udp:127.0.0.1:7001"}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			opts, err := f.options(cmd.OutOrStdout(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return inspect.Run(cmd.Context(), args, opts)
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.block, "block", nil, "block the names of a `file`, one a line")
	flags.StringSliceVar(&f.blockName, "block-name", nil, "block these `names`")
	flags.StringVar(&f.answer, "answer", "nxdomain", "what is said of a blocked name: nxdomain, zero (0.0.0.0 and ::) or refused")
	f.names.add(flags)
	flags.IntVar(&f.maxFlows, "max-flows", 0, "bound the flows, or connections, that each address has open to this `number` (default: 65536 of UDP, no bound of TCP)")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "print nothing but errors")
	return cmd
}

func (f *proxyFlags) options(stdout, stderr io.Writer) (opts inspect.Options, err error) {
	if !f.quiet {
		opts.Output = stdout
	}
	if opts.MaxFlows = f.maxFlows; f.maxFlows < 0 {
		return opts, fmt.Errorf("read --max-flows %d: want a number that is not negative", f.maxFlows)
	}
	switch f.answer {
	case "nxdomain":
		opts.Rules.Answer = dns.NXDOMAIN
	case "zero":
		opts.Rules.Answer = dns.Unspecified
	case "refused":
		opts.Rules.Answer = dns.Refused
	default:
		return opts, fmt.Errorf("read --answer %q: want nxdomain, zero or refused", f.answer)
	}
	if err := opts.Rules.Add(f.blockName...); err != nil {
		return opts, fmt.Errorf("read --block-name: %w", err)
	}
	for _, path := range f.block {
		if err := loadList(&opts.Rules, path); err != nil {
			return opts, err
		}
	}
	opts.Tell = f.names.tell(stderr)
	return opts, nil
}

func loadList(rules *dns.Rules, path string) error {
	list, err := os.Open(path)
	if err != nil {
		return err
	}
	defer list.Close()
	if err := rules.Load(list); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}
