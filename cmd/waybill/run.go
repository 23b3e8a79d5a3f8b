//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/waybill-net/waybill/internal/cgroup"
	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/policyfile"
	"github.com/waybill-net/waybill/internal/preset"
	embedded "github.com/waybill-net/waybill/internal/run" // run is main's own
)

// statusOwnFailure is for what goes wrong before the command runs: its own
// statuses are not confused with ours. env and timeout use the same.
const statusOwnFailure = 125

// runFlags are the flags of waybill run as they are written.
type runFlags struct {
	via         []string
	policy      string
	socket      string
	user        string
	ports       string
	destination []string
	settings    []string
	udp         bool
	block       bool
	quiet       bool
	list        bool
	timeout     time.Duration
}

func newRun() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run [flags] [--] COMMAND [ARGUMENT...]",
		Short: "Run a command behind proxies",
		Long: `Run a command with one or more proxies in front of its connections, in the
order of --via.

A proxy is one that waybill knows how to start (--list): it is started for this
command alone, as a user without rights, and everything is gone when the
command ends. That needs root. Or it is a provider of the policy that the
daemon keeps in force, in the order of the policy; who is not root may use those
that the policy opens to one of his groups. Or, with --policy, a provider of a
file that says how to start it.

TCP to every address that leaves the machine is redirected; UDP with --udp, to
the proxies that take it. Loopback addresses are only if --destination names
them.

The exit status is the command's, or 128 and the number of the signal that
ended it; 127 if the command was not found, 126 if it can not be executed, 125
if waybill itself failed. Without --user the command runs as whoever runs
waybill: under sudo, as root.`,
		Example: `  sudo waybill run --via mitmproxy -- curl -s http://example.org/
  sudo waybill run --via mitmproxy -- sh -c 'curl --cacert $WAYBILL_CA https://example.org/'
  sudo waybill run --via mitmproxy,haproxy --user "$SUDO_USER" -- firefox
  sudo waybill run --policy ./policy.yaml -- make test
  waybill run --via dlp -- curl -s https://example.org/
  sudo waybill run --via inspect --destination 127.0.0.0/8 --port 5432 -- psql -h 127.0.0.1`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 && !f.list {
				err := &hintError{errors.New("run: no command given"), "waybill run --via inspect -- curl -s http://example.org/"}
				return &exitStatus{statusOwnFailure, err}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.list {
				return listPresets(cmd.OutOrStdout())
			}
			return runCommand(cmd, f, args)
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exitStatus{statusOwnFailure, err} })
	f.register(cmd)
	return cmd
}

func (f *runFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.SetInterspersed(false) // what follows the command is the command's
	flags.StringSliceVar(&f.via, "via", nil, "the `proxies`, in order: see --list")
	flags.StringVar(&f.policy, "policy", "", "start the proxies of this policy `file` and apply its filters to the command")
	flags.StringVar(&f.socket, "socket", control.DefaultSocket, "`path` of the daemon's socket")
	flags.StringVar(&f.user, "user", "", "run the command as this `user`: a name, a number, or UID:GID")
	flags.StringVar(&f.ports, "port", "", "redirect these `ports` only, such as 80,443,8000-8999")
	flags.StringSliceVar(&f.destination, "destination", nil, "redirect connections to these `prefixes` only")
	flags.StringArrayVar(&f.settings, "set", nil, "set an option of a proxy: `PROXY.OPTION=VALUE`")
	flags.BoolVar(&f.udp, "udp", false, "redirect UDP, too, to those of the proxies that take it")
	flags.BoolVar(&f.block, "block", false, "refuse connections while a proxy is dead, instead of passing it by")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "do not show what the proxies print")
	flags.DurationVar(&f.timeout, "timeout", 30*time.Second, "how long a proxy may take to start")
	flags.BoolVar(&f.list, "list", false, "list the proxies and what can be set")
}

func runCommand(cmd *cobra.Command, f runFlags, args []string) error {
	opts, err := f.options(args, cmd.ErrOrStderr())
	if err != nil {
		return &exitStatus{statusOwnFailure, err}
	}
	// Signals are the command's business now, not those of main's context.
	ctx := context.WithoutCancel(cmd.Context())
	var status int
	if f.needsDaemon() {
		for _, name := range []string{"port", "destination", "set", "udp", "block", "timeout", "quiet"} {
			if cmd.Flags().Changed(name) {
				err := &hintError{fmt.Errorf("run behind providers of the daemon: --%s has no effect there", name), "the policy says what its providers get; leave the flag out"}
				return &exitStatus{statusOwnFailure, err}
			}
		}
		status, err = embedded.Here(ctx, opts, f.enter)
	} else {
		status, err = embedded.Run(ctx, opts)
	}
	var (
		notRun      *embedded.ExecError
		interrupted *embedded.SignalError
		missing     *preset.NotInstalledError
	)
	switch {
	case errors.As(err, &notRun):
		return &exitStatus{notRun.Status, err}
	case errors.As(err, &interrupted):
		return &exitStatus{128 + int(interrupted.Signal), interrupted}
	case errors.As(err, &missing):
		return &exitStatus{statusOwnFailure, &hintError{err, missing.Hint()}}
	case err != nil:
		return &exitStatus{statusOwnFailure, withHint(hinted(err))}
	case status != 0:
		return &exitStatus{code: status}
	}
	return nil
}

// needsDaemon: what is not a preset is a provider of the policy that a daemon
// keeps in force. Presets are started by root alone; for others the daemon
// may have providers of these names.
func (f *runFlags) needsDaemon() bool {
	if f.policy != "" {
		return false
	}
	return f.lookUpPresets() != nil || os.Geteuid() != 0
}

// lookUpPresets returns an error for the first name that is none.
func (f *runFlags) lookUpPresets() error {
	for _, name := range f.via {
		if _, err := preset.Lookup(name); err != nil {
			return err
		}
	}
	return nil
}

// enter asks the daemon to redirect the connections of this process and of
// those that it starts.
func (f *runFlags) enter(ctx context.Context) (leave func() error, err error) {
	run, err := control.Client{Socket: f.socket}.Run(ctx, control.RunRequest{Via: f.via})
	if unknown := f.lookUpPresets(); errors.Is(err, control.ErrNoDaemon) && unknown != nil {
		return nil, unknown // nobody meant a daemon
	}
	if err != nil {
		return nil, fmt.Errorf("run behind %s: %w", strings.Join(f.via, ", "), err)
	}
	return run.Close, nil
}

func (f *runFlags) options(args []string, stderr io.Writer) (opts embedded.Options, err error) {
	opts = embedded.Options{Via: f.via, Command: args, User: f.user, UDP: f.udp, Messages: stderr, Timeout: f.timeout}
	if !f.quiet {
		opts.Output = stderr
	}
	if f.block {
		opts.OnDown = policy.Block
	}
	if f.ports != "" {
		if opts.Ports, err = preset.ParsePorts(f.ports); err != nil {
			return opts, err
		}
	}
	for _, s := range f.destination {
		prefix, err := parsePrefix(s)
		if err != nil {
			return opts, err
		}
		opts.Destination = append(opts.Destination, prefix)
	}
	if opts.Settings, err = parseSettings(f.settings); err != nil || f.policy == "" {
		return opts, err
	}
	file, err := readPolicyFile(f.policy)
	if err != nil {
		return opts, err
	}
	opts.Policy = &file.Policy
	return opts, nil
}

// readPolicyFile prints the warnings nowhere: policy check does.
func readPolicyFile(path string) (*policyfile.File, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	root, err := cgroup.Root()
	if err != nil {
		return nil, err
	}
	return policyfile.Parse(path, text, policyfile.Options{CgroupRoot: root})
}

// parsePrefix also takes an address, for the prefix that holds it alone.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return prefix, fmt.Errorf("read destination %q: want an address or a prefix, such as 192.0.2.0/24", s)
	}
	return prefix, nil
}

func parseSettings(settings []string) (map[string]map[string]string, error) {
	parsed := make(map[string]map[string]string)
	for _, s := range settings {
		key, value, ok := strings.Cut(s, "=")
		name, option, dotted := strings.Cut(key, ".")
		if !ok || !dotted {
			return nil, fmt.Errorf("read --set %q: want PROXY.OPTION=VALUE", s)
		}
		if parsed[name] == nil {
			parsed[name] = make(map[string]string)
		}
		parsed[name][option] = value
	}
	return parsed, nil
}

func listPresets(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, p := range preset.List() {
		state := "installed"
		if err := p.Installed(); err != nil {
			state = "not installed"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", p.Name, state, p.About)
		if p.UDP {
			fmt.Fprintf(table, "\t\t--udp: it takes UDP, too\n")
		}
		for _, o := range p.Options {
			fmt.Fprintf(table, "\t\t--set %s.%s=: %s (default: %s)\n", p.Name, o.Name, o.About, o.Default)
		}
	}
	return table.Flush()
}

func newSOCKSServer() *cobra.Command {
	return &cobra.Command{
		Use:    "socks-server ADDRESS",
		Short:  "Run the SOCKS 5 server of the preset redsocks",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return preset.RunSOCKS(cmd.Context(), args[0])
		},
	}
}
