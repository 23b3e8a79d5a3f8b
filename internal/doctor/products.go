//go:build linux

package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/waybill-net/waybill/internal/engine"
)

// product is something that changes connections, and the traces by which it
// is recognised.
type product struct {
	name      string
	programs  []string // how the names of its BPF programs begin
	tables    []string // its nft tables
	chains    []string // how the names of its packet filter chains begin
	processes []string

	level           Level
	meaning, remedy string
}

const (
	serviceMeaning = "It replaces a service's address by that of one of its servers. Its connect hook sits on the root cgroup and so " +
		"runs after waybill's: filters match the service's address, and so does the original destination that proxies see."
	serviceRemedy = "name services, not pods, in filters; attach waybill below the root cgroup, so that its hooks come first"
	meshMeaning   = "It redirects connections to its own proxy, inside each pod's network namespace, after waybill. " +
		"A connection that a waybill proxy opens there is taken a second time."
	meshRemedy    = "leave pods of the mesh out of the scope, or except the proxies from the mesh's capture"
	watchMeaning  = "It judges connections by their process. It sees the application connect to the proxy, and the proxy to the destination."
	watchRemedy   = "allow the proxies the destinations of all applications, and applications the proxies' addresses on loopback"
	catchMeaning  = "It takes connections by packet filter, marks or a tun device, after waybill: also those that waybill's proxies open."
	catchRemedy   = "make it a provider, by its redirect port, and turn its automatic capture off; or except the proxies from it"
	tunnelMeaning = "It routes by the process that opens a connection. An application that is excluded from the tunnel, and redirected, " +
		"has its connection opened by the proxy, which is not excluded; and the other way round."
	tunnelRemedy = "run proxies and their clients on the same side of the tunnel"
)

var products = []product{
	{
		name: "Cilium", programs: []string{"cil_"}, chains: []string{"CILIUM_"}, processes: []string{"cilium-agent"},
		level: Info, meaning: serviceMeaning, remedy: serviceRemedy,
	},
	{
		name: "Calico", programs: []string{"calico_", "cali_"}, processes: []string{"calico-node"},
		level: Info, meaning: serviceMeaning, remedy: serviceRemedy,
	},
	{
		name: "kube-proxy", chains: []string{"KUBE-SERVICES"}, tables: []string{"kube-proxy"}, processes: []string{"kube-proxy"},
		level:   Info,
		meaning: "It replaces a service's address by that of one of its servers, in the packet filter: after waybill.",
		remedy:  "name services, not pods, in filters",
	},
	{
		name: "Istio", chains: []string{"ISTIO_"}, processes: []string{"ztunnel", "pilot-agent"},
		level: Warning, meaning: meshMeaning, remedy: meshRemedy,
	},
	{
		name: "Linkerd", chains: []string{"PROXY_INIT_"}, processes: []string{"linkerd2-proxy"},
		level: Warning, meaning: meshMeaning, remedy: meshRemedy,
	},
	{
		name: "Merbridge", programs: []string{"mb_"}, processes: []string{"mbctl"},
		level: Warning, meaning: meshMeaning, remedy: meshRemedy,
	},
	{name: "Kmesh", processes: []string{"kmesh-daemon"}, level: Warning, meaning: meshMeaning, remedy: meshRemedy},
	{
		name: "sing-box", tables: []string{"sing-box"}, processes: []string{"sing-box"},
		level: Warning, meaning: catchMeaning, remedy: catchRemedy,
	},
	{
		name: "mihomo", tables: []string{"mihomo"}, processes: []string{"mihomo", "clash", "clash-meta"},
		level: Warning, meaning: catchMeaning, remedy: catchRemedy,
	},
	{name: "dae", processes: []string{"dae"}, level: Warning, meaning: catchMeaning, remedy: catchRemedy},
	{
		name: "Mullvad VPN", tables: []string{"mullvad"}, processes: []string{"mullvad-daemon"},
		level: Info, meaning: tunnelMeaning, remedy: tunnelRemedy,
	},
	{
		name: "Portmaster", chains: []string{"PORTMASTER-"}, processes: []string{"portmaster-core", "portmaster-start"},
		level: Info, meaning: watchMeaning, remedy: watchRemedy,
	},
	{
		name: "OpenSnitch", tables: []string{"opensnitch"}, processes: []string{"opensnitchd"},
		level: Info, meaning: watchMeaning, remedy: watchRemedy,
	},
}

// products says what follows from products that are known.
func (x *examination) products() []Finding {
	var findings []Finding
	for _, p := range products {
		if trace := x.trace(p); trace != "" {
			findings = append(findings, Finding{
				Level: p.level, Subject: fmt.Sprintf("%s is here: %s", p.name, trace),
				Meaning: p.meaning, Remedy: p.remedy,
			})
		}
	}
	return findings
}

// trace returns the first trace of a product.
func (x *examination) trace(p product) string {
	for _, a := range x.attached {
		if beginsWith(a.Name, p.programs) {
			return fmt.Sprintf("program %s on %s", a.Name, a.Cgroup)
		}
	}
	for _, c := range x.chains {
		if slices.Contains(p.tables, c.Table.Name) {
			return "nft table " + c.Table.Name
		}
		if beginsWith(c.Name, p.chains) {
			return "nft chain " + c.Name
		}
	}
	for _, c := range x.legacy {
		if beginsWith(c, p.chains) {
			return "iptables chain " + c
		}
	}
	if running, ok := x.processes.running(p.processes...); ok {
		return "process " + running.String()
	}
	return ""
}

// productOf names the product that a program belongs to.
func productOf(a engine.Attached) string {
	for _, p := range products {
		if beginsWith(a.Name, p.programs) {
			return p.name
		}
	}
	return ""
}

func beginsWith(name string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}
