package policyfile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/waybill-net/waybill/internal/policy"
)

// warnProviders looks for what is allowed and hardly meant.
func (r *reader) warnProviders(d document) {
	redirects := make(map[string]bool)
	for _, f := range d.filters {
		if f.Action == policy.ActionRedirect {
			redirects[f.Provider] = true
		}
	}
	of := make(map[int32]string) // the last provider of a weight
	for _, p := range d.providers {
		if !redirects[p.Name] && len(p.OpenTo) == 0 {
			r.warning(p.at("name"), "add a filter with action: redirect, or leave the provider out",
				"provider %q has no filter that redirects: its proxy sees nothing", p.Name)
		}
		if other, ok := of[p.Weight]; ok {
			r.warning(p.at("weight"), "give it another weight",
				"weight %d is also that of provider %q: their order in the file decides", p.Weight, other)
		}
		of[p.Weight] = p.Name
		if d.shadow && p.has("mode") && !p.Shadow {
			r.warning(p.at("mode"), "leave it out, or take mode: shadow from the top of the file",
				`mode "enforce" of provider %q has no effect: the whole file is in shadow mode`, p.Name)
		}
		if len(p.Exec) == 1 && strings.ContainsAny(p.Exec[0], " \t") {
			r.warning(p.processes.at("exec"), "write a list: ["+quoted(strings.Fields(p.Exec[0]))+"]",
				"exec %q is one word with spaces in it: no shell takes it apart", p.Exec[0])
		}
	}
}

func quoted(words []string) string {
	var list []string
	for _, w := range words {
		list = append(list, fmt.Sprintf("%q", w))
	}
	return strings.Join(list, ", ")
}

// scouted is a filter and the connections that it matches.
type scouted struct {
	*filter
	*reach
}

// warnFilters looks at the filters in the order in which they are asked.
func (r *reader) warnFilters(d document) {
	redirects := make(map[string][]scouted)
	authorizes := make(map[string][]scouted)
	s := newScout()
	for _, f := range d.filters {
		layer := redirects
		if f.Action != policy.ActionRedirect {
			layer = authorizes
		}
		layer[f.Provider] = append(layer[f.Provider], scouted{f, s.reach(f)})
	}
	for _, layer := range []map[string][]scouted{redirects, authorizes} {
		for _, filters := range layer {
			slices.SortStableFunc(filters, func(a, b scouted) int { return cmp.Compare(b.Weight, a.Weight) })
			r.warnShadowed(filters)
		}
	}
	for _, filters := range authorizes {
		r.warnIdlePermits(filters)
	}
	r.warnFamilies(d.providers, redirects)
	r.warnPrograms(d.providers, redirects)
	r.warnNames(d.filters)
}

// warnShadowed finds filters that never come to their turn. Every filter is
// compared with all before it, which takes about a second for ten thousand of one
// provider.
func (r *reader) warnShadowed(filters []scouted) {
	for i, f := range filters {
		for _, before := range filters[:i] {
			if !before.covers(f.reach) {
				continue
			}
			why := "heavier"
			if before.Weight == f.Weight {
				why = "earlier, of the same weight,"
			}
			r.warning(f.at("name"), fmt.Sprintf("give it a weight above %d, or leave it out", before.Weight),
				"filter %q never counts: filter %q is %s and matches all that it matches", f.Name, before.Name, why)
			break
		}
	}
}

// warnIdlePermits finds permits that keep nothing from being blocked.
func (r *reader) warnIdlePermits(filters []scouted) {
	blocks := false
	for _, f := range slices.Backward(filters) {
		switch {
		case f.Action == policy.ActionBlock:
			blocks = true
		case !blocks:
			r.warning(f.at("action"), "to keep connections from being redirected use not-destination in the filter that redirects",
				"permit filter %q has no effect: provider %q has no block filter behind it", f.Name, f.Provider)
		}
	}
}

// warnPrograms finds filters that ask for a program where they will often see
// the proxy of a heavier provider.
func (r *reader) warnPrograms(providers []*provider, redirects map[string][]scouted) {
	ordered := slices.Clone(providers)
	slices.SortStableFunc(ordered, func(a, b *provider) int { return cmp.Compare(b.Weight, a.Weight) })
	var before []scouted // filters of the providers so far
	for _, p := range ordered {
		for _, f := range redirects[p.Name] {
			if len(f.Programs) == 0 || f.states&(1<<policy.RedirectedByOther) == 0 {
				continue
			}
			if i := slices.IndexFunc(before, func(b scouted) bool { return b.meets(f.reach) }); i >= 0 {
				r.warning(f.match.at("program"), "use original-program, or state: not-redirected if that is meant",
					"program of filter %q: what provider %q has redirected comes from its proxy, not from %s", f.Name, before[i].Provider, f.Programs[0])
			}
		}
		if !p.Shadow {
			before = append(before, redirects[p.Name]...)
		}
	}
}

// warnNames finds filters that ask for names in a file under which no proxy
// sees DNS. Others can tell names, too, so that may be meant.
func (r *reader) warnNames(filters []*filter) {
	if slices.ContainsFunc(filters, (*filter).redirectsDNS) {
		return
	}
	for _, f := range filters {
		if len(f.Domains) > 0 {
			r.warning(f.match.at("domain"), "redirect DNS to a proxy that tells names, with port: 53 and protocol: [tcp, udp]: see Names in docs/policy.md",
				"filter %q asks for names, which nobody tells: no filter redirects port 53", f.Name)
		}
	}
}

// redirectsDNS is false for a filter that asks for names itself: it has none of
// a resolver before a name is told.
func (f *filter) redirectsDNS() bool {
	isDNS := func(r policy.PortRange) bool { return r.First <= 53 && 53 <= r.Last }
	return f.Action == policy.ActionRedirect && len(f.Domains) == 0 && (len(f.Ports) == 0 || slices.ContainsFunc(f.Ports, isDNS))
}
