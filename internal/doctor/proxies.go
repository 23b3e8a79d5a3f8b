//go:build linux

package doctor

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// knownProxies has the proxies that can learn where a connection was going,
// and what makes them ask.
var knownProxies = []struct{ program, mode string }{
	{"mitmproxy", "start it with --mode transparent"},
	{"mitmdump", "start it with --mode transparent"},
	{"mitmweb", "start it with --mode transparent"},
	{"redsocks", ""},
	{"redsocks2", ""},
	{"haproxy", "give it a server with the address 0.0.0.0, or *"},
	{"squid", "give its http_port the word intercept"},
	{"envoy", "give its listener the filter original_dst"},
	{"sing-box", "give it an inbound of the type redirect"},
	{"nginx", "it forwards by host name: list the names in its stream or http configuration"},
	{"privoxy", "set accept-intercepted-requests 1"},
	{"tinyproxy", "it must have been built with --enable-transparent"},
	{"clash", "set redir-port"},
	{"mihomo", "set redir-port"},
	{"v2ray", "give it a dokodemo-door inbound with followRedirect"},
	{"xray", "give it a dokodemo-door inbound with followRedirect"},
}

// proxies finds proxies that listen here and are in no provider.
func (x *examination) proxies() []Finding {
	listeners, err := listen()
	if err != nil {
		return []Finding{unseen("listeners", err)}
	}
	var findings []Finding
	for _, l := range listeners {
		if x.isProvider(l.addr) {
			continue
		}
		for _, p := range x.processes.ofSocket[l.inode] {
			if f, ok := describeProxy(l, p); ok {
				findings = append(findings, f)
				break // the others share the socket: its workers
			}
		}
	}
	if x.processes.hidden > 0 {
		findings = append(findings, Finding{
			Level: Info, Subject: fmt.Sprintf("the descriptors of %d processes are hidden from this user", x.processes.hidden),
			Meaning: "Proxies among them, and holders of BPF programs, were not recognised.",
			Remedy:  "run waybill doctor as root",
		})
	}
	return findings
}

func describeProxy(l listener, p process) (Finding, bool) {
	for _, known := range knownProxies {
		if !p.is(known.program) {
			continue
		}
		f := Finding{
			Level: Info, Subject: fmt.Sprintf("%s listens on %s, for no provider", p, l.addr),
			Meaning: "If something redirects connections to it, waybill does not know, and can not rule out a loop with its own proxies.",
			Remedy:  fmt.Sprintf("start it in a cgroup of its own inside the scope, and add a provider with that cgroup and the proxy %s", l.addr),
		}
		if known.mode != "" {
			f.Remedy += "; " + known.mode
		}
		return f, true
	}
	return Finding{}, false
}

// isProvider: a wildcard listener also is where a provider says that its
// proxy is.
func (x *examination) isProvider(l netip.AddrPort) bool {
	return slices.ContainsFunc(x.providers, func(p netip.AddrPort) bool {
		sameFamily := p.Addr().Unmap().Is4() == l.Addr().Is4() || l.Addr() == netip.IPv6Unspecified()
		return p.Port() == l.Port() && (p.Addr().Unmap() == l.Addr() || l.Addr().IsUnspecified() && sameFamily)
	})
}

type listener struct {
	addr  netip.AddrPort
	inode uint32
}

const tcpListen = 10 // TCP_LISTEN of the kernel's include/net/tcp_states.h

// listen returns the TCP listeners of this network namespace.
func listen() ([]listener, error) {
	var listeners []listener
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		sockets, err := netlink.SocketDiagTCP(family)
		if err != nil {
			return nil, err
		}
		for _, s := range sockets {
			addr, ok := netip.AddrFromSlice(s.ID.Source)
			if ok && s.State == tcpListen {
				listeners = append(listeners, listener{netip.AddrPortFrom(addr.Unmap(), s.ID.SourcePort), s.INode})
			}
		}
	}
	slices.SortFunc(listeners, func(a, b listener) int {
		return cmp.Or(cmp.Compare(a.addr.Port(), b.addr.Port()), a.addr.Compare(b.addr))
	})
	return listeners, nil
}
