//go:build linux

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/waybill-net/waybill/internal/control"
)

func newProviders() *cobra.Command {
	var daemon daemonFlags
	cmd := &cobra.Command{
		Use:   "providers [NAME...]",
		Short: "Show the providers of the policy in force and how they fare",
		Long: `Show the providers of the policy in force, the heaviest first: whether their
proxies listen, who their processes are, what became of the connections that
they wanted, and the last lines that a proxy printed which the daemon starts.`,
		Example: "  sudo waybill providers\n  sudo waybill providers adblock\n" +
			`  sudo waybill providers --json | jq '.[] | select(.problem) | .name'`,
		RunE: func(cmd *cobra.Command, names []string) error {
			all, err := daemon.client().Providers(cmd.Context())
			if err != nil {
				return hinted(err)
			}
			providers, err := pick(all, names)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if daemon.asJSON {
				return printJSON(out, providers)
			}
			return showProviders(out, providers, newPaint(out))
		},
	}
	daemon.register(cmd)
	return cmd
}

// pick returns the providers of these names, or all.
func pick(all []control.Provider, names []string) ([]control.Provider, error) {
	if len(names) == 0 {
		return all, nil
	}
	var known []string
	byName := make(map[string]control.Provider)
	for _, p := range all {
		known = append(known, p.Name)
		byName[p.Name] = p
	}
	var picked []control.Provider
	for _, name := range names {
		p, ok := byName[name]
		if !ok {
			return nil, &hintError{fmt.Errorf("show provider %q: the policy has no such", name), "it has: " + list(known, "none")}
		}
		picked = append(picked, p)
	}
	return picked, nil
}

func showProviders(out io.Writer, providers []control.Provider, p paint) error {
	var b strings.Builder
	if len(providers) == 0 {
		b.WriteString("no providers: the policy in force redirects nothing\n")
	}
	for i := range providers {
		if i > 0 {
			b.WriteByte('\n')
		}
		showProvider(&b, &providers[i], p)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func showProvider(b *strings.Builder, provider *control.Provider, p paint) {
	state := p.green("up")
	if !provider.Up() {
		state = p.red("down")
	}
	fmt.Fprintf(b, "%s  %s\n", p.bold(provider.Name), state)
	line := func(label, format string, args ...any) {
		fmt.Fprintf(b, "  %-10s %s\n", label, fmt.Sprintf(format, args...))
	}
	if provider.Problem != "" {
		line("problem", "%s", p.red(printable(provider.Problem)))
	}
	for _, a := range provider.Addresses {
		listens := "listens"
		switch {
		case !a.Listening:
			listens = p.red("does not listen")
		case a.Waiting > 0:
			listens += fmt.Sprintf(", %s to be accepted", count(a.Waiting, "connection"))
		}
		line("proxy", "%s%s %s", a.Address, protocolSuffix(a.Protocol), listens)
	}
	line("processes", "%s", processesText(&provider.Processes))
	line("order", "weight %d, on-down %s, mode %s", provider.Weight, provider.OnDown, provider.Mode)
	line("open to", "%s", list(provider.OpenTo, "nobody but root"))
	c := provider.Counters
	line("wanted", "%d redirected, %d arrived, %d bypassed, %d blocked, %d forbidden, %d in shadow",
		c.Redirected, c.Arrived, c.Bypassed, c.Blocked, c.Forbidden, c.Shadowed)
	line("its end", "%d reset, %d forwarded without records", c.Reset, c.Inherited)
	if provider.Proxy != nil {
		showProxy(b, provider.Proxy, line)
	}
}

func processesText(r *control.Processes) string {
	text := r.Unit
	switch {
	case len(r.Exec) > 0:
		text = strings.Join(r.Exec, " ")
		if r.User != "" {
			text += " as " + r.User
		}
	case text == "":
		text = r.Cgroup
	}
	const few = 8
	switch n := len(r.PIDs); {
	case n == 0:
		text += ": none runs"
	case n <= few:
		text += ": pid " + strings.Trim(strings.ReplaceAll(fmt.Sprint(r.PIDs), " ", ", "), "[]")
	default:
		text += fmt.Sprintf(": %d processes", n)
	}
	return printable(text)
}

func showProxy(b *strings.Builder, proxy *control.Proxy, line func(label, format string, args ...any)) {
	state := "does not run, for " + age(proxy.Since)
	if proxy.Running {
		state = "runs, for " + age(proxy.Since)
	}
	state += ", started again " + count(proxy.Restarts, "time")
	if proxy.LastExit != "" {
		state += ", last end: " + printable(proxy.LastExit)
	}
	line("program", "%s", state)
	for _, text := range proxy.Tail {
		fmt.Fprintf(b, "    | %s\n", cut(printable(text), 94))
	}
}

// protocolSuffix marks what is not TCP, as port numbers are written: 53/udp.
func protocolSuffix(protocol string) string {
	if protocol == "" {
		return ""
	}
	return "/" + protocol
}
