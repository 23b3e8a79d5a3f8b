//go:build linux

package doctor

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// packetFilter finds rules that send TCP connections to a local port. Waybill
// works before the first packet, the packet filter after it.
func (x *examination) packetFilter() []Finding {
	findings := append(x.nft(), x.iptables()...)
	if len(findings) == 0 {
		return []Finding{{Level: OK, Subject: "no rule of this network namespace sends connections to a local port"}}
	}
	return findings
}

func (x *examination) nft() []Finding {
	var (
		conn     nftables.Conn
		captures []capture
		err      error
	)
	if x.chains, err = conn.ListChains(); err == nil {
		captures, err = readCaptures(localAddresses())
	}
	var findings []Finding
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return nil // a kernel without nf_tables has no rules
	case err != nil:
		findings = append(findings, unseen("rules of nftables", err))
	}
	for _, c := range captures {
		findings = append(findings, c.describe(x.hookOf(c)))
	}
	return findings
}

// hookOf returns the hook of the rule's chain; nil if it has none and is
// jumped to.
func (x *examination) hookOf(c capture) *nftables.ChainHook {
	for _, chain := range x.chains {
		if chain.Name == c.chain && chain.Table.Name == c.table.Name && chain.Table.Family == c.table.Family {
			return chain.Hooknum
		}
	}
	return nil
}

const takenTwice = "These connections are taken a second time, by the packet filter: also those that waybill's proxies open. " +
	"If what listens there dials on, and is redirected or captured again, that is a loop that waybill does not see."

const outsideOnly = "It takes connections that come from outside this network namespace: those of other hosts or containers, " +
	"and those that waybill's proxies open there."

func (c capture) describe(hook *nftables.ChainHook) Finding {
	where := fmt.Sprintf("%s %s %s", familyName(c.table.Family), c.table.Name, c.chain)
	f := Finding{
		Level:   Warning,
		Subject: fmt.Sprintf("nft %s handle %d: %s of %s to %s", where, c.handle, c.action, portsOf(c.ports), c.to),
		Meaning: takenTwice,
		Remedy: fmt.Sprintf("make what listens there a provider, and remove the rule: nft delete rule %s handle %d; "+
			"or except the proxies' processes from it", where, c.handle),
	}
	// In prerouting, redirect and dnat see no connection that begins here;
	// tproxy does, when policy routing sends it through loopback.
	if hook != nil && *hook == *nftables.ChainHookPrerouting && c.action != "tproxy" {
		f.Level = Info
		f.Meaning = outsideOnly
	}
	return f
}

func portsOf(conditions []string) string {
	if len(conditions) == 0 {
		return "all ports"
	}
	return "port " + strings.Join(conditions, " and ")
}

func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyINet:
		return "inet"
	case nftables.TableFamilyBridge:
		return "bridge"
	}
	return fmt.Sprintf("family %d", f)
}

// localAddresses lists those of the calling thread's network namespace.
func localAddresses() []netip.Addr {
	var local []netip.Addr
	addresses, _ := net.InterfaceAddrs() // without them, loopback is still known
	for _, a := range addresses {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			local = append(local, prefix.Addr().Unmap())
		}
	}
	return local
}
