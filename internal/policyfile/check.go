package policyfile

import (
	"fmt"
	"net/netip"

	"github.com/goccy/go-yaml/ast"

	"github.com/waybill-net/waybill/internal/policy"
)

// names reports those that are used twice.
type names map[string]ast.Node

func (r *reader) unique(seen names, name, what string, o object) {
	if name == "" {
		return
	}
	if first, twice := seen[name]; twice {
		line := r.place(first, "", "").Line
		r.problem(o.at("name"), fmt.Sprintf("rename it; the first is in line %d", line), "name of %s %q used twice", what, name)
		return
	}
	seen[name] = o.at("name")
}

// checkProviders looks at what several providers can not have in common.
func (r *reader) checkProviders(providers []*provider) {
	seen := make(names)
	listens, udp := make(map[netip.AddrPort]string), make(map[netip.AddrPort]string)
	for i, p := range providers {
		r.unique(seen, p.Name, "provider", p.object)
		r.takeListen(listens, p, "listen", p.Listen)
		r.takeListen(listens, p, "listen6", p.Listen6)
		r.takeListen(udp, p, "udp", p.UDP)
		r.takeListen(udp, p, "udp6", p.UDP6)
		for _, other := range providers[:i] {
			r.checkApart(p, other)
		}
	}
}

func (r *reader) takeListen(taken map[netip.AddrPort]string, p *provider, field string, a netip.AddrPort) {
	if !a.IsValid() {
		return
	}
	if other, ok := taken[a]; ok {
		r.problem(p.proxy.at(field), "give each proxy a port of its own", "%s address %s is that of provider %q already", field, a, other)
		return
	}
	taken[a] = p.Name
}

// checkApart: a process can be one provider's only.
func (r *reader) checkApart(p, other *provider) {
	const hint = "give each proxy a cgroup of its own, beside the other's"
	switch {
	case p.Unit != "" && p.Unit == other.Unit:
		r.problem(p.processes.at("unit"), hint, "unit %q is that of provider %q already", p.Unit, other.Name)
	case p.Cgroup != "" && other.Cgroup != "" && (isBelow(p.Cgroup, other.Cgroup) || isBelow(other.Cgroup, p.Cgroup)):
		r.problem(p.processes.at("cgroup"), hint, "cgroup %q overlaps %q of provider %q", p.Cgroup, other.Cgroup, other.Name)
	}
}

func (r *reader) checkFilters(d document) {
	var providers []string
	known := make(map[string]bool)
	for _, p := range d.providers {
		if p.Name != "" && !known[p.Name] {
			known[p.Name] = true
			providers = append(providers, p.Name)
		}
	}
	seen := make(names)
	for _, f := range d.filters {
		r.unique(seen, f.Name, "filter", f.object)
		if f.Provider != "" && !known[f.Provider] {
			r.problem(f.at("provider"), wordHint(f.Provider, providers), "unknown provider %q", f.Provider)
		}
		r.checkAddresses(f)
		r.checkClients(f, d.providers)
	}
}

// checkClients: the processes of a proxy are never its own clients.
func (r *reader) checkClients(f *filter, providers []*provider) {
	if f.Action != policy.ActionRedirect {
		return
	}
	for _, p := range providers {
		if p.Name != f.Provider || p.Cgroup == "" {
			continue
		}
		for i, dir := range f.Cgroups {
			if isBelow(dir, p.Cgroup) {
				nodes := r.items(f.match, "cgroup")
				r.problem(nodes[min(i, len(nodes)-1)], "give the proxy a cgroup of its own, and run its clients in another",
					"cgroup %q holds processes of provider %q itself: they are never redirected to it", dir, p.Name)
			}
		}
	}
}

// checkAddresses looks for exceptions that leave nothing to match.
func (r *reader) checkAddresses(f *filter) {
	broken := len(f.Destination) < len(r.items(f.match, "destination"))
	if broken || len(f.NotDestination) == 0 || len(addresses(&f.Filter)) > 0 {
		return
	}
	hint := "take something out of it, or leave the filter out"
	r.problem(f.match.at("not-destination"), hint, "not-destination %s leaves nothing of destination %s",
		brief(f.NotDestination), brief(f.Destination))
}

// brief is a short form of a list that can be very long.
func brief(prefixes []netip.Prefix) string {
	switch len(prefixes) {
	case 0:
		return "(every address)"
	case 1:
		return prefixes[0].String()
	}
	return fmt.Sprintf("%s and %d more", prefixes[0], len(prefixes)-1)
}
