//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/waybill-net/waybill/internal/cgroup"
	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/explain"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/policyfile"
)

func newPolicyExplain() *cobra.Command {
	var (
		q      explain.Question
		file   string
		daemon daemonFlags
	)
	cmd := &cobra.Command{
		Use:   "explain [flags] ADDRESS:PORT",
		Short: "Say which way a connection would take, and why",
		Long: `Say which way a connection would take under a policy: through which proxies,
and by which filter of which provider each step is decided. Nothing is
connected and nothing is applied. Without --policy it is the policy that the
daemon keeps in force, and the daemon knows which proxies are down.

Every proxy is taken to listen and to pass its records on, unless --down or
--unaware name its provider. What is not told about a process is not known:
filters that ask for it are taken not to match, and that is said.

Programs, users and cgroups are looked up on this host.`,
		Example: `  waybill policy explain --policy policy.yaml --program /usr/bin/curl 192.0.2.1:443
  waybill policy explain --policy policy.yaml --user alice --down dlp '[2001:db8::1]:443'
  waybill policy explain --policy policy.yaml --json 192.0.2.1:443 | jq .proxies`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if q.Dst, err = parseDestination(args[0]); err != nil {
				return err
			}
			if q.Program, err = findProgram(q.Program); err != nil {
				return fmt.Errorf("explain connection: %w", err)
			}
			return runPolicyExplain(cmd, file, q, daemon)
		},
	}
	cmd.Flags().StringVar(&file, "policy", "", "the policy `file`; - is standard input")
	daemon.register(cmd)
	registerQuestion(cmd, &q)
	return cmd
}

func registerQuestion(cmd *cobra.Command, q *explain.Question) {
	flags := cmd.Flags()
	flags.BoolVar(&q.UDP, "udp", false, "it is UDP")
	flags.StringSliceVar(&q.Names, "name", nil, "`names` that led to the address, for filters that ask for a domain (default: what the daemon was told)")
	flags.StringVar(&q.Program, "program", "", "the `program` that connects: a path, or a name to be found in PATH")
	flags.StringVar(&q.User, "user", "", "the `user` who connects: a name or a number")
	flags.StringVar(&q.Cgroup, "cgroup", "", "the cgroup that the program is in: a `path` in the cgroup v2 hierarchy")
	flags.StringToStringVar(&q.ProxyPrograms, "proxy-program", nil, "the program of a provider's proxy: `PROVIDER=PATH`")
	flags.StringToStringVar(&q.ProxyUsers, "proxy-user", nil, "the user of a provider's proxy: `PROVIDER=USER`")
	flags.StringSliceVar(&q.Down, "down", nil, "`providers` whose proxies do not listen")
	flags.StringSliceVar(&q.Unaware, "unaware", nil, "`providers` whose proxies dial from a pool: they neither set nor inherit records")
}

func runPolicyExplain(cmd *cobra.Command, file string, q explain.Question, daemon daemonFlags) error {
	explained, err := explainConnection(cmd, file, q, daemon)
	var hinted *explain.HintedError
	if errors.As(err, &hinted) {
		return &hintError{err, hinted.Hint}
	}
	if err != nil {
		return err
	}
	if daemon.asJSON {
		return printJSON(cmd.OutOrStdout(), explained)
	}
	return showExplanation(cmd.OutOrStdout(), explained)
}

func explainConnection(cmd *cobra.Command, file string, q explain.Question, daemon daemonFlags) (e policy.Explanation, err error) {
	if file == "" {
		e, err = daemon.client().Explain(cmd.Context(), q)
		if errors.Is(err, control.ErrNoDaemon) {
			return e, &hintError{fmt.Errorf("explain connection: no policy: %w", err), "name a policy file: --policy policy.yaml; or start the daemon, which has one"}
		}
		return e, hinted(err)
	}
	data, err := readPolicy(cmd.InOrStdin(), file)
	if err != nil {
		return e, err
	}
	// Without cgroup v2 on this host no path can begin with its directory.
	root, _ := cgroup.Root()
	parsed, err := policyfile.Parse(file, data, policyfile.Options{CgroupRoot: root})
	var broken *policyfile.Error
	if errors.As(err, &broken) {
		return e, &hintError{fmt.Errorf("read policy %s: %s", file, count(len(broken.Problems), "problem")), "waybill policy check " + file}
	}
	if err != nil {
		return e, err
	}
	return explain.Answer(parsed.Policy, q)
}

// findProgram returns the path of an executable; the daemon has another PATH.
func findProgram(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	if !strings.Contains(name, "/") {
		return exec.LookPath(name)
	}
	return filepath.Abs(name)
}

// parseDestination takes an address and a port. A name can stand for several
// addresses, and be another tomorrow.
func parseDestination(s string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return netip.AddrPort{}, &hintError{fmt.Errorf("read destination %q: want an address and a port", s), "192.0.2.1:443, or [2001:db8::1]:443"}
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, &hintError{
			fmt.Errorf("read destination %q: %q is not an IP address", s, host),
			"resolve it first: getent ahosts " + host + "; and give its name as --name " + host,
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return netip.AddrPort{}, fmt.Errorf("read destination %q: port %q is not a number from 1 to 65535", s, port)
	}
	return netip.AddrPortFrom(a, uint16(n)), nil
}
