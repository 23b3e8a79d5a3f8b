package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/spf13/cobra"

	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/dns"
	"github.com/waybill-net/waybill/internal/domain"
	"github.com/waybill-net/waybill/internal/inspect"
)

// proxyFlags are the flags of waybill proxy as they are written.
type proxyFlags struct {
	block     []string
	blockName []string
	answer    string
	names     string
	maxFlows  int
	quiet     bool
}

func newProxy() *cobra.Command {
	var f proxyFlags
	cmd := &cobra.Command{
		Use:   "proxy [flags] ADDRESS:PORT...",
		Short: "Run waybill's own proxy, for a provider of a policy",
		Long: `Run waybill's own proxy: it passes on what is redirected to it, and prints a
line for each connection, each flow of UDP and each question of DNS. An address
is of TCP, or of UDP with "udp:" before it.

It needs no rights but to run in its provider's processes: the policy starts it
as a user without rights, or "waybill run --via inspect" does.

What goes to port 53 is taken for DNS. Questions about names that are blocked
are answered in the place of the resolver, and QUIC to them is refused, by the
name that the client shows. A name in a list is the name itself; *.example.com
is everything below. Lists may be in the form of a hosts file.

Which addresses names lead to it tells the daemon, for filters that ask for a
domain, and for "waybill flows" and "waybill trace".`,
		Example: `  waybill proxy 127.0.0.1:7001 '[::1]:7001' udp:127.0.0.1:7001 'udp:[::1]:7001'
  waybill proxy --block /etc/waybill/ads.txt --answer zero udp:127.0.0.1:7001`,
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
	flags.StringVar(&f.names, "names", "", "`path` of the socket on which names are told (default: $"+control.NamesVariable+", or the daemon's)")
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
	opts.Tell = f.tell(stderr)
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

// tell is for a daemon that may come and go: that there is none is no error,
// unless one was named. Nor is a name that a program asked for and that is none
// of a host: no filter can ask for it. Other trouble is said once.
func (f *proxyFlags) tell(stderr io.Writer) func(context.Context, dns.Resolved) {
	socket := cmp.Or(f.names, os.Getenv(control.NamesVariable), control.DefaultNamesSocket)
	client := control.NewNamesClient(socket)
	var once sync.Once
	return func(ctx context.Context, found dns.Resolved) {
		if _, err := domain.ParseName(found.Name); err != nil {
			return
		}
		err := client.Tell(ctx, found)
		if err != nil && (f.names != "" || !errors.Is(err, control.ErrNoDaemon)) {
			once.Do(func() { fmt.Fprintf(stderr, "waybill: names are not told: %v\n", err) })
		}
	}
}
