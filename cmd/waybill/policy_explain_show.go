//go:build linux

package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/waybill-net/waybill/internal/policy"
)

// showExplanation writes one paragraph for each connection of the chain.
func showExplanation(out io.Writer, e policy.Explanation) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, s := range e.Steps {
		// Lines without a tab are not part of a column.
		verb, suffix := "connects", ""
		if e.Protocol == policy.UDP.String() {
			verb, suffix = "sends", protocolSuffix(e.Protocol)
		}
		fmt.Fprintf(w, "%s %s to %s%s\n", describeSubject(s), verb, e.Dst, suffix)
		for _, inquiry := range s.Inquiries {
			showInquiry(w, e, s, inquiry)
		}
	}
	fmt.Fprintln(w, conclude(e))
	for _, u := range e.Unknown {
		fmt.Fprintln(w, describeUnknown(u))
	}
	return w.Flush()
}

func showInquiry(w io.Writer, e policy.Explanation, s policy.Step, inquiry policy.Inquiry) {
	label := string(inquiry.Layer)
	if inquiry.AsTCP {
		label += " of TCP"
	}
	if inquiry.ForOrigin {
		label += " for " + nameOf(e.Steps[0].Process)
	}
	row := func(provider, state, reason string) {
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", label, provider, state, reason)
		label = ""
	}
	for _, a := range inquiry.Answers {
		// Most providers authorize nothing: that is not worth a line.
		if inquiry.Layer == policy.LayerRedirect || a.Effect != policy.Unmatched {
			row(a.Provider, a.State, a.Reason)
		}
	}
	switch {
	case inquiry.Layer == policy.LayerAuthorize && !inquiry.Blocked():
		row("", "", "permitted: no filter blocks it")
	case inquiry.AsTCP:
	case s.DialsTo != "":
		row("", "", "nobody is asked: this is the address of the proxy of "+s.DialsTo)
	case inquiry.Layer == policy.LayerRedirect && len(inquiry.NotAsked) > 0:
		row("", "", "not asked: "+strings.Join(inquiry.NotAsked, ", "))
	}
}

func nameOf(s policy.Subject) string {
	if s.Program == "" {
		return "the program"
	}
	return filepath.Base(s.Program)
}

// describeSubject is "curl (/usr/bin/curl, user alice)".
func describeSubject(s policy.Step) string {
	var facts []string
	if s.Process.Program != "" {
		facts = append(facts, s.Process.Program)
	}
	if s.Process.User != "" {
		facts = append(facts, "user "+s.Process.User)
	}
	if s.Process.Cgroup != "" {
		facts = append(facts, "cgroup "+s.Process.Cgroup)
	}
	name := nameOf(s.Process)
	if s.ProxyOf != "" {
		name = "proxy of " + s.ProxyOf
	}
	if len(facts) == 0 {
		return name
	}
	return fmt.Sprintf("%s (%s)", name, strings.Join(facts, ", "))
}

func conclude(e policy.Explanation) string {
	last := e.Steps[len(e.Steps)-1]
	who := nameOf(e.Steps[0].Process)
	if len(e.Steps) > 1 {
		who = "the proxy of " + last.ProxyOf
	}
	switch {
	case e.Outcome == policy.DropQUIC.String():
		return fmt.Sprintf("quic-dropped: %s gets EACCES, so that it uses TCP, because of filter %s of %s", who, last.Filter, last.Provider)
	case e.Outcome == policy.Forbid.String(), e.Outcome == policy.Refuse.String():
		return fmt.Sprintf("%s: %s gets EACCES, because of filter %s of %s", e.Outcome, who, last.Filter, last.Provider)
	case e.Outcome == policy.Loop.String() && last.Outcome == policy.Redirect.String():
		return "goes round for ever, because tracking is off: " + strings.Join(e.Proxies, ", ")
	case e.Outcome == policy.Loop.String():
		return fmt.Sprintf("looped: %s gets ELOOP, after %s", who, strings.Join(e.Proxies, ", "))
	case len(e.Proxies) == 0:
		return fmt.Sprintf("arrives at %s without a proxy", e.Dst)
	}
	return fmt.Sprintf("arrives at %s after %s: %s", e.Dst, proxies(len(e.Proxies)), strings.Join(e.Proxies, ", "))
}

func proxies(n int) string {
	if n == 1 {
		return "1 proxy"
	}
	return fmt.Sprintf("%d proxies", n)
}

// describeUnknown says what to add so that the answer is certain.
func describeUnknown(u policy.Unknown) string {
	whose, flag := "the program that connects", "--"+u.What
	if u.What == "program" && u.ProxyOf == "" {
		return "note: a filter asks which program connects, and none was named: --program"
	}
	if u.ProxyOf != "" {
		whose = "the proxy of " + u.ProxyOf
		flag = "--proxy-" + u.What + " " + u.ProxyOf + "="
		if u.What == "cgroup" {
			return fmt.Sprintf("note: a filter asks for the cgroup of %s, which the policy does not name", whose)
		}
	}
	return fmt.Sprintf("note: a filter asks for the %s of %s, which is not known: %s", u.What, whose, flag)
}
