package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
)

// FileID is the identity of an executable: that of its inode.
type FileID struct {
	Device uint64 // as the kernel's dev_t: major << 20 | minor
	Inode  uint64
}

// CgroupID is the identity of a cgroup.
type CgroupID struct {
	ID    uint64 // as bpf_get_current_cgroup_id: the inode number of the directory
	Level uint32 // depth below the root of the hierarchy
}

// Identities are the numbers behind the names in a policy, as the system has
// them at one moment. What does not exist at that moment is not in the maps,
// and conditions on it match nothing.
type Identities struct {
	Programs map[string]FileID // by path
	Users    map[string]uint32 // by name
	Cgroups  map[string]CgroupID
}

// Table is a compiled policy. Providers stand in order, the heaviest first.
// Filters stand in the order in which they count: those that redirect, by
// provider and by weight inside it, then those that authorize, likewise.
type Table struct {
	Providers    []TableProvider
	Filters      []TableFilter
	NumRedirects int
	TrackingOff  bool
	byDomain     map[string][]int // by pattern: the filters that ask for it
	spaces       *spaces          // of destinations; nil if no filter asks for a name
}

// TableProvider is a [Provider] with its place among the filters.
type TableProvider struct {
	Provider
	Handle     uint64
	ID         CgroupID // of its cgroup; zero: it has no processes now
	Redirects  Span
	Authorizes Span
}

// Span is a range of indices of filters, the end not included.
type Span struct{ First, End int }

// TableFilter is a [Filter] with the numbers behind its names.
type TableFilter struct {
	Filter
	Owner        int // index of its provider
	programs     []FileID
	originals    []FileID
	uids         []uint32
	cgroups      []CgroupID
	origCgroups  []CgroupID
	named        map[string]CgroupID // by path, those of both lists that exist
	stateMask    uint8               // bit s: state s
	destinations []netip.Prefix
	exceptions   []netip.Prefix
}

// Compile checks a policy and makes its table.
func Compile(p Policy, ids Identities) (*Table, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	t := &Table{TrackingOff: p.TrackingOff}
	for _, provider := range InOrder(p.Providers) {
		provider.Shadow = provider.Shadow || p.Shadow
		t.Providers = append(t.Providers, TableProvider{
			Provider: provider,
			Handle:   Handle(provider.Name),
			ID:       ids.Cgroups[provider.Cgroup],
		})
	}
	filters := byProvider(p.Filters)
	for i := range t.Providers {
		owner := &t.Providers[i]
		owner.Redirects = t.add(i, filters[owner.Name], Action.redirects, ids)
	}
	t.NumRedirects = len(t.Filters)
	for i := range t.Providers {
		owner := &t.Providers[i]
		owner.Authorizes = t.add(i, filters[owner.Name], Action.authorizes, ids)
	}
	t.byDomain = make(map[string][]int)
	for i := range t.Filters {
		for _, pattern := range t.Filters[i].Domains {
			t.byDomain[pattern] = append(t.byDomain[pattern], i)
		}
	}
	if t.AsksNames() {
		t.spaces = newSpaces(t.destinations())
	}
	return t, nil
}

// InOrder sorts providers as they see a connection: the heaviest first.
func InOrder(providers []Provider) []Provider {
	providers = slices.Clone(providers)
	slices.SortStableFunc(providers, func(a, b Provider) int { return cmp.Compare(b.Weight, a.Weight) })
	return providers
}

func (a Action) redirects() bool  { return a == ActionRedirect }
func (a Action) authorizes() bool { return a != ActionRedirect }

// byProvider sorts each provider's filters, the heaviest first.
func byProvider(filters []Filter) map[string][]Filter {
	of := make(map[string][]Filter)
	for _, f := range filters {
		of[f.Provider] = append(of[f.Provider], f)
	}
	for _, own := range of {
		slices.SortStableFunc(own, func(a, b Filter) int { return cmp.Compare(b.Weight, a.Weight) })
	}
	return of
}

// add appends the filters of one provider and one layer.
func (t *Table) add(owner int, filters []Filter, layer func(Action) bool, ids Identities) Span {
	first := len(t.Filters)
	for _, f := range filters {
		if layer(f.Action) {
			t.Filters = append(t.Filters, resolve(f, owner, ids))
		}
	}
	return Span{first, len(t.Filters)}
}

func resolve(f Filter, owner int, ids Identities) TableFilter {
	t := TableFilter{
		Filter:       f,
		Owner:        owner,
		programs:     lookUp(f.Programs, ids.Programs),
		originals:    lookUp(f.OriginalPrograms, ids.Programs),
		uids:         lookUpUsers(f.Users, ids.Users),
		cgroups:      lookUp(f.Cgroups, ids.Cgroups),
		origCgroups:  lookUp(f.OriginalCgroups, ids.Cgroups),
		destinations: unmapAll(f.Destination),
		exceptions:   unmapAll(f.NotDestination),
	}
	for _, path := range slices.Concat(f.Cgroups, f.OriginalCgroups) {
		if id, ok := ids.Cgroups[path]; ok {
			if t.named == nil {
				t.named = make(map[string]CgroupID)
			}
			t.named[path] = id
		}
	}
	for _, s := range f.States {
		t.stateMask |= 1 << s
	}
	switch {
	case t.stateMask != 0:
	case f.Action == ActionRedirect:
		t.stateMask = 1<<NotRedirected | 1<<RedirectedByOther
	default:
		t.stateMask = 1<<NotRedirected | 1<<RedirectedBySelf | 1<<RedirectedByOther | 1<<PreviouslyRedirectedBySelf
	}
	return t
}

func lookUp[ID any](names []string, ids map[string]ID) []ID {
	var found []ID
	for _, name := range names {
		if id, ok := ids[name]; ok {
			found = append(found, id)
		}
	}
	return found
}

// lookUpUsers takes a number for itself.
func lookUpUsers(names []string, ids map[string]uint32) []uint32 {
	var found []uint32
	for _, name := range names {
		if n, err := strconv.ParseUint(name, 10, 32); err == nil {
			found = append(found, uint32(n))
		} else if id, ok := ids[name]; ok {
			found = append(found, id)
		}
	}
	return found
}

// Unmatched lists the conditions of p that can match nothing at present,
// because what they name does not exist: "filter web: program /usr/bin/curl".
func (p Policy) Unmatched(ids Identities) []string {
	var missing []string
	for _, provider := range p.Providers {
		if _, ok := ids.Cgroups[provider.Cgroup]; !ok && provider.Cgroup != "" {
			missing = append(missing, "provider "+provider.Name+": cgroup "+provider.Cgroup)
		}
	}
	for _, f := range p.Filters {
		missing = append(missing, absent(f, "program", f.Programs, ids.Programs)...)
		missing = append(missing, absent(f, "original-program", f.OriginalPrograms, ids.Programs)...)
		missing = append(missing, absent(f, "cgroup", append(slices.Clone(f.Cgroups), f.OriginalCgroups...), ids.Cgroups)...)
		for _, u := range f.Users {
			if len(lookUpUsers([]string{u}, ids.Users)) == 0 {
				missing = append(missing, "filter "+f.Name+": user "+u)
			}
		}
	}
	return missing
}

func absent[ID any](f Filter, what string, names []string, ids map[string]ID) []string {
	var missing []string
	for _, name := range names {
		if _, ok := ids[name]; !ok {
			missing = append(missing, "filter "+f.Name+": "+what+" "+name)
		}
	}
	return missing
}

func unmapAll(prefixes []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range prefixes {
		out = append(out, unmap(p).Masked())
	}
	return out
}

// unmap turns a prefix of IPv4-mapped addresses into one of IPv4 addresses:
// the kernel programs see ::ffff:192.0.2.1 as 192.0.2.1.
func unmap(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

var localSpaces = []netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("::1/128"),
	netip.MustParsePrefix("fe80::/10"),
}

// isLocal reports whether all of prefix is loopback or IPv6 link-local.
func isLocal(prefix netip.Prefix) bool {
	return slices.ContainsFunc(localSpaces, func(s netip.Prefix) bool {
		return prefix.Bits() >= s.Bits() && s.Contains(prefix.Addr())
	})
}
