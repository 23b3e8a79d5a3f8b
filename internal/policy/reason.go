package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// witness tells why one provider answered as it did.
type witness struct {
	*journey
	query   *Query
	process *party // whom query.Process is; not always who connects
	reply   reply
	span    Span
}

func (w *witness) answer() Answer {
	a := Answer{
		Provider: w.table.Providers[w.reply.provider].Name,
		State:    w.reply.state.String(),
		Effect:   w.reply.effect,
		Reason:   w.reason(),
	}
	if w.reply.filter >= 0 {
		a.Filter = w.table.Filters[w.reply.filter].Name
	}
	if w.reply.excluded >= 0 {
		a.Excluded = w.table.Filters[w.reply.excluded].Name
	}
	return a
}

func (w *witness) reason() string {
	p := &w.table.Providers[w.reply.provider]
	switch w.reply.effect {
	case Redirects:
		return fmt.Sprintf("redirects to %s: %s", p.Address(w.query.Protocol, w.Dst.Addr()), w.filter(w.reply.filter))
	case Blocks:
		return "blocks: " + w.filter(w.reply.filter)
	case Permits:
		return "permits: " + w.filter(w.reply.filter)
	case Refuses:
		return fmt.Sprintf("refuses: %s, and on-down is block; %s would redirect", w.down(p), w.filter(w.reply.filter))
	case Loops:
		return fmt.Sprintf("refuses: there are %d hops already; %s would redirect", MaxHops, w.filter(w.reply.filter))
	case Bypassed:
		return fmt.Sprintf("skipped: %s; %s would redirect", w.down(p), w.filter(w.reply.filter))
	case Shadowed:
		return fmt.Sprintf("skipped: shadow mode; %s would %s", w.filter(w.reply.filter), w.table.Filters[w.reply.filter].Action)
	case Excluded:
		return "skipped: " + w.state()
	}
	return w.unmatched()
}

func (w *witness) filter(i int) string {
	f := &w.table.Filters[i]
	return fmt.Sprintf("filter %s (weight %d)", f.Name, f.Weight)
}

func (w *witness) down(p *TableProvider) string {
	switch {
	case p.Address(w.query.Protocol, w.Dst.Addr()).IsValid():
		return "its proxy does not listen"
	case w.query.Protocol == UDP:
		return "it has no address for UDP over " + family(w.Dst.Addr())
	}
	return "it has no address for " + family(w.Dst.Addr())
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

func (w *witness) state() string {
	f := &w.table.Filters[w.reply.excluded]
	switch {
	case f.Action != ActionRedirect || w.reply.state.MayRedirect():
		var states []string
		for _, s := range f.States {
			states = append(states, s.String())
		}
		return w.filter(w.reply.excluded) + " is for " + list(states)
	case w.reply.state == RedirectedBySelf:
		return "its own proxy connects"
	}
	return "it counts as having had this flow already"
}

// unmatched tells what the heaviest filter misses.
func (w *witness) unmatched() string {
	switch n := w.span.End - w.span.First; n {
	case 0:
		return "has no filter"
	case 1:
		return fmt.Sprintf("does not match: %s: %s", w.filter(w.span.First), w.mismatch(&w.table.Filters[w.span.First]))
	default:
		return fmt.Sprintf("none of %d filters matches; the first, %s: %s", n, w.filter(w.span.First), w.mismatch(&w.table.Filters[w.span.First]))
	}
}

func (w *witness) mismatch(f *TableFilter) string {
	switch f.mismatch(w.query) {
	case DimDestination:
		return w.destination(f)
	case DimPort:
		if protocols := f.WantedProtocols(); !slices.Contains(protocols, cmp.Or(w.query.Protocol, TCP)) {
			return fmt.Sprintf("protocol %s is not %s", w.query.Protocol, list(protocols))
		}
		return fmt.Sprintf("port %d is not %s", w.Dst.Port(), list(f.Ports))
	case DimProgram:
		return isNot("program", w.process.Program, f.Programs)
	case DimOriginalProgram:
		return isNot("original program", w.origin.Program, f.OriginalPrograms)
	case DimUser:
		return isNot("user", w.process.User, f.Users)
	case DimCgroup:
		return isNot("cgroup", w.process.Cgroup, f.Cgroups)
	case DimOriginalCgroup:
		return isNot("original cgroup", w.origin.Cgroup, f.OriginalCgroups)
	case DimDomain:
		return isNot("name", strings.Join(w.query.Names, ", "), f.Domains)
	}
	return "" // not reached: it does not match
}

func (w *witness) destination(f *TableFilter) string {
	a := w.Dst.Addr()
	if i := slices.IndexFunc(f.exceptions, func(p netip.Prefix) bool { return p.Contains(a) }); i >= 0 {
		return fmt.Sprintf("%s is in not-destination %s", a, f.exceptions[i])
	}
	if len(f.destinations) == 0 || slices.ContainsFunc(f.destinations, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return fmt.Sprintf("%s is loopback or link-local, and no destination lies inside that space", a)
	}
	return fmt.Sprintf("%s is not in %s", a, list(f.destinations))
}

func isNot(what, is string, wanted []string) string {
	switch {
	case is == "":
		return fmt.Sprintf("%s is not known; it wants %s", what, list(wanted))
	case strings.HasSuffix(what, "cgroup"):
		return fmt.Sprintf("%s %s is not in %s", what, is, list(wanted))
	}
	return fmt.Sprintf("%s %s is not %s", what, is, list(wanted))
}

// maxListed values are shown of those that a condition has.
const maxListed = 3

func list[T any](values []T) string {
	var b strings.Builder
	for i, v := range values {
		switch {
		case i == maxListed:
			fmt.Fprintf(&b, " or %d more", len(values)-i)
			return b.String()
		case i > 0 && i == len(values)-1:
			b.WriteString(" or ")
		case i > 0:
			b.WriteString(", ")
		}
		fmt.Fprint(&b, v)
	}
	return b.String()
}

// noteUnknown looks at the filters that were asked for conditions on what
// nobody knows: with it the answer could be another.
func (w *witness) noteUnknown() {
	end := w.span.End
	if w.reply.filter >= 0 {
		end = w.reply.filter
	}
	for i := w.span.First; i < end; i++ {
		who, what, is := w.process, "", ""
		switch w.table.Filters[i].mismatch(w.query) {
		case DimProgram:
			what, is = "program", who.Program
		case DimOriginalProgram:
			who, what, is = &w.origin, "program", w.origin.Program
		case DimUser:
			what, is = "user", who.User
		case DimCgroup:
			what, is = "cgroup", who.Cgroup
		case DimOriginalCgroup:
			who, what, is = &w.origin, "cgroup", w.origin.Cgroup
		}
		u := Unknown{who.proxyOf, what}
		if what != "" && is == "" && !slices.Contains(w.Unknown, u) {
			w.Unknown = append(w.Unknown, u)
		}
	}
}
