//go:build linux

package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// iptables looks at the legacy tables, which nftables does not show. Those of
// iptables-nft are nft rules.
func (x *examination) iptables() []Finding {
	var findings []Finding
	for _, family := range []struct{ names, save string }{
		{"ip_tables_names", "iptables-legacy-save"},
		{"ip6_tables_names", "ip6tables-legacy-save"},
	} {
		// Of this thread, which may have a network namespace of its own.
		b, err := os.ReadFile("/proc/thread-self/net/" + family.names)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the kernel has never loaded them
		}
		if err != nil {
			return append(findings, unseen("tables of the legacy iptables", err))
		}
		for table := range strings.FieldsSeq(string(b)) {
			// Only these two redirect. To ask for a table that does not
			// exist would make it.
			if table == "nat" || table == "mangle" {
				findings = append(findings, x.legacyTable(family.save, table)...)
			}
		}
	}
	return findings
}

func (x *examination) legacyTable(save, table string) []Finding {
	out, err := exec.CommandContext(x.ctx, save, "-t", table).Output()
	if errors.Is(err, exec.ErrNotFound) {
		return []Finding{{
			Level: Warning, Subject: "the legacy iptables has a table " + table + ", whose rules can not be listed",
			Meaning: "It may redirect connections after waybill. The program " + save + " is not installed.",
			Remedy:  "install it and run waybill doctor again",
		}}
	}
	if err != nil {
		return []Finding{unseen("table "+table+" of the legacy iptables", err)}
	}
	var findings []Finding
	local := localAddresses()
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if chain, ok := strings.CutPrefix(line, ":"); ok {
			name, _, _ := strings.Cut(chain, " ")
			x.legacy = append(x.legacy, name)
		}
		if rule, ok := strings.CutPrefix(line, "-A "); ok && capturesTCP(strings.Fields(rule), local) {
			findings = append(findings, describeLegacy(strings.TrimSuffix(save, "-save"), table, rule))
		}
	}
	return findings
}

// capturesTCP reads a rule as iptables-save prints it: "PREROUTING -p tcp -m
// tcp --dport 80 -j REDIRECT --to-ports 8080".
func capturesTCP(rule []string, local []netip.Addr) bool {
	after := func(option string) string {
		if i := slices.Index(rule, option); i >= 0 && i+1 < len(rule) {
			return rule[i+1]
		}
		return ""
	}
	if p := after("-p"); p != "" && p != "tcp" {
		return false
	}
	switch after("-j") {
	case "REDIRECT", "TPROXY":
		return true
	case "DNAT":
		to := after("--to-destination")
		a, err := netip.ParseAddrPort(to)
		address := a.Addr()
		if err != nil {
			address, err = netip.ParseAddr(to)
		}
		return err == nil && (address.IsLoopback() || slices.Contains(local, address))
	}
	return false
}

func describeLegacy(command, table, rule string) Finding {
	f := Finding{
		Level:   Warning,
		Subject: fmt.Sprintf("%s -t %s: %s", command, table, rule),
		Meaning: takenTwice,
		Remedy:  fmt.Sprintf("make what listens there a provider, and remove the rule: %s -t %s -D %s", command, table, rule),
	}
	if strings.HasPrefix(rule, "PREROUTING ") && table == "nat" {
		f.Level = Info
		f.Meaning = outsideOnly
	}
	return f
}
