package policy

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
)

// Dimension is one thing that filters ask of a connection, as in bpf/abi.h.
type Dimension uint32

const (
	DimDestination Dimension = iota
	DimPort
	DimProgram
	DimOriginalProgram
	DimUser
	DimCgroup
	DimOriginalCgroup
	Dimensions
)

// SetWords is the length of a [Set].
const SetWords = MaxFilters / 64

// Set is a set of filters: bit i % 64 of word i / 64 is filter i.
type Set [SetWords]uint64

func (s *Set) add(i int) { s[i/64] |= 1 << (i % 64) }

func (s *Set) without(t *Set) {
	for i := range s {
		s[i] &^= t[i]
	}
}

// Class is a class of values in one dimension, with the filters that they
// satisfy. Data is as in struct wb_class_key; of its bits only the first Bits
// are compared, and the longest that match are the value's class.
type Class struct {
	Dimension Dimension
	Data      [16]byte
	Bits      int
	Exact     bool // of one value that a filter names
	Members   Set
}

// Classes lays the conditions of all filters out for one look-up a dimension.
func (t *Table) Classes() []Class {
	classes := t.destinations()
	classes = append(classes, t.ports()...)
	for d, of := range map[Dimension]struct {
		asks func(*TableFilter) bool
		ids  func(*TableFilter) []FileID
	}{
		DimProgram: {
			func(f *TableFilter) bool { return len(f.Programs) > 0 },
			func(f *TableFilter) []FileID { return f.programs },
		},
		DimOriginalProgram: {
			func(f *TableFilter) bool { return len(f.OriginalPrograms) > 0 },
			func(f *TableFilter) []FileID { return f.originals },
		},
	} {
		classes = append(classes, exact(t, d, of.asks, of.ids, func(id FileID) [16]byte { return data64(id.Inode, id.Device) })...)
	}
	classes = append(classes, exact(t, DimUser, func(f *TableFilter) bool { return len(f.Users) > 0 },
		func(f *TableFilter) []uint32 { return f.uids }, func(uid uint32) [16]byte { return data64(uint64(uid), 0) })...)
	return append(classes, t.cgroupClasses()...)
}

// States returns the filters that match in each state, and last all of them.
func (t *Table) States() [5]Set {
	var sets [5]Set
	for i := range t.Filters {
		for s := range 4 {
			if t.Filters[i].stateMask&(1<<s) != 0 {
				sets[s].add(i)
			}
		}
		sets[4].add(i)
	}
	return sets
}

// StateMask has bit s for each state s in which the filter matches.
func (f *TableFilter) StateMask() uint8 { return f.stateMask }

// Asks reports whether any filter has a condition in one of the dimensions.
func (t *Table) Asks(dimensions ...Dimension) bool {
	return slices.ContainsFunc(t.Filters, func(f TableFilter) bool {
		asked := map[Dimension]int{
			DimDestination: len(f.Destination) + len(f.NotDestination), DimPort: len(f.Ports),
			DimProgram: len(f.Programs), DimOriginalProgram: len(f.OriginalPrograms),
			DimUser: len(f.Users), DimCgroup: len(f.Cgroups), DimOriginalCgroup: len(f.OriginalCgroups),
		}
		return slices.ContainsFunc(dimensions, func(d Dimension) bool { return asked[d] > 0 })
	})
}

// WantedPorts has bit p for each port p that some filter wants.
func (t *Table) WantedPorts() [1024]uint64 {
	var wanted [1024]uint64
	for i := range t.Filters {
		if len(t.Filters[i].Ports) == 0 {
			for w := range wanted {
				wanted[w] = ^uint64(0)
			}
			return wanted
		}
		for _, r := range t.Filters[i].Ports {
			for p := int(r.First); p <= int(r.Last); p++ {
				wanted[p/64] |= 1 << (p % 64)
			}
		}
	}
	return wanted
}

func portsOf(f *TableFilter) []PortRange {
	if len(f.Ports) == 0 {
		return []PortRange{{0, 65535}}
	}
	return f.Ports
}

// data64 lays two numbers out as wb_set_key64 does.
func data64(low, high uint64) (data [16]byte) {
	binary.LittleEndian.PutUint64(data[:], low)
	binary.LittleEndian.PutUint64(data[8:], high)
	return data
}

// exact makes the classes of a dimension in which filters name single values,
// and that of all other values.
func exact[ID comparable](t *Table, d Dimension, asks func(*TableFilter) bool, ids func(*TableFilter) []ID, encode func(ID) [16]byte) []Class {
	other := Class{Dimension: d}
	named := make(map[ID][]int)
	for i := range t.Filters {
		f := &t.Filters[i]
		if !asks(f) {
			other.Members.add(i)
		}
		for _, id := range ids(f) {
			named[id] = append(named[id], i)
		}
	}
	classes := []Class{other}
	for id, filters := range named {
		c := Class{Dimension: d, Data: encode(id), Bits: 128, Exact: true, Members: other.Members}
		for _, i := range filters {
			c.Members.add(i)
		}
		classes = append(classes, c)
	}
	return classes
}

// cgroupClasses makes a class in both dimensions for each cgroup that any
// filter names: the deepest that a process is in finds those of all above it.
func (t *Table) cgroupClasses() []Class {
	paths := make(map[string]CgroupID)
	for i := range t.Filters {
		for path, id := range t.Filters[i].named {
			paths[filepath.Clean(path)] = id
		}
	}
	classes := t.classesOfCgroups(DimCgroup, paths, func(f *TableFilter) []string { return f.Cgroups })
	return append(classes, t.classesOfCgroups(DimOriginalCgroup, paths, func(f *TableFilter) []string { return f.OriginalCgroups })...)
}

func (t *Table) classesOfCgroups(d Dimension, paths map[string]CgroupID, names func(*TableFilter) []string) []Class {
	other := Class{Dimension: d}
	named := make(map[string][]int) // by path, who names it
	for i := range t.Filters {
		f := &t.Filters[i]
		if len(names(f)) == 0 {
			other.Members.add(i)
		}
		for _, path := range names(f) {
			if _, exists := f.named[path]; exists {
				named[filepath.Clean(path)] = append(named[filepath.Clean(path)], i)
			}
		}
	}
	classes := []Class{other}
	for path, id := range paths {
		c := Class{Dimension: d, Data: data64(id.ID, 0), Bits: 128, Exact: true, Members: other.Members}
		for above := path; ; above = filepath.Dir(above) {
			for _, i := range named[above] {
				c.Members.add(i)
			}
			if above == filepath.Dir(above) {
				break
			}
		}
		classes = append(classes, c)
	}
	return classes
}

// node is a prefix in one dimension on its way to becoming a [Class].
type node struct {
	data  [16]byte
	bits  int
	local bool // redirects that do not name this space end here
	fresh bool // nothing is inherited from the prefix around it
	in    []int
	out   []int
}

func (n *node) key() nodeKey { return nodeKey{n.data, n.bits} }

type nodeKey struct {
	data [16]byte
	bits int
}

func (n *node) contains(m *node) bool {
	return n.bits <= m.bits && commonBits(n.data, m.data) >= n.bits
}

func commonBits(a, b [16]byte) int {
	for i := range a {
		if a[i] != b[i] {
			return 8*i + bits.LeadingZeros8(a[i]^b[i])
		}
	}
	return 128
}

// nodes is a set of prefixes.
type nodes map[nodeKey]*node

func (ns nodes) at(data [16]byte, bits int) *node {
	n := &node{data: data, bits: bits}
	if have, ok := ns[n.key()]; ok {
		return have
	}
	ns[n.key()] = n
	return n
}

func (ns nodes) atPrefix(p netip.Prefix) *node {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	return ns.at(p.Addr().As16(), bits)
}

// classes gives each prefix the filters of those around it. isRedirect tells
// which filters end at the border of a local space.
func (ns nodes) classes(d Dimension, isRedirect *Set) []Class {
	sorted := make([]*node, 0, len(ns))
	for _, n := range ns {
		sorted = append(sorted, n)
	}
	// A prefix comes before all that it contains.
	slices.SortFunc(sorted, func(a, b *node) int {
		return cmp.Or(bytes.Compare(a.data[:], b.data[:]), cmp.Compare(a.bits, b.bits))
	})
	type open struct {
		*node
		in, out Set
	}
	var (
		around  []open
		classes = make([]Class, 0, len(sorted))
	)
	for _, n := range sorted {
		for len(around) > 0 && !around[len(around)-1].contains(n) {
			around = around[:len(around)-1]
		}
		next := open{node: n}
		if len(around) > 0 && !n.fresh {
			next.in, next.out = around[len(around)-1].in, around[len(around)-1].out
		}
		if n.local {
			next.in.without(isRedirect)
		}
		for _, i := range n.in {
			next.in.add(i)
		}
		for _, i := range n.out {
			next.out.add(i)
		}
		c := Class{Dimension: d, Data: n.data, Bits: n.bits, Members: next.in}
		c.Members.without(&next.out)
		classes = append(classes, c)
		around = append(around, next)
	}
	return classes
}

// destinations makes the classes of addresses. IPv4 stands at ::ffff:0:0/96,
// and nothing that holds for ::/0 holds there.
func (t *Table) destinations() []Class {
	var (
		ns         = make(nodes)
		all6, all4 = ns.at([16]byte{}, 0), ns.atPrefix(netip.PrefixFrom(netip.IPv4Unspecified(), 0))
		isRedirect Set
	)
	all4.fresh = true
	for _, space := range localSpaces {
		ns.atPrefix(space).local = true
	}
	for i := range t.Filters {
		f := &t.Filters[i]
		if f.Action == ActionRedirect {
			isRedirect.add(i)
		}
		for _, p := range f.destinations {
			n := ns.atPrefix(p)
			n.in = append(n.in, i)
		}
		if len(f.destinations) == 0 {
			all6.in, all4.in = append(all6.in, i), append(all4.in, i)
		}
		for _, p := range f.exceptions {
			n := ns.atPrefix(p)
			n.out = append(n.out, i)
		}
	}
	return ns.classes(DimDestination, &isRedirect)
}

func (t *Table) ports() []Class {
	ns := make(nodes)
	ns.at([16]byte{}, 0)
	for i := range t.Filters {
		for _, r := range portsOf(&t.Filters[i]) {
			for _, block := range r.blocks() {
				var data [16]byte
				binary.BigEndian.PutUint16(data[:], block.first)
				n := ns.at(data, block.bits)
				n.in = append(n.in, i)
			}
		}
	}
	return ns.classes(DimPort, &Set{})
}

// portBlock is the ports whose first bits are those of first.
type portBlock struct {
	first uint16
	bits  int
}

// blocks cuts a range into blocks, at most 30 of them.
func (r PortRange) blocks() []portBlock {
	var blocks []portBlock
	for first, last := int(r.First), int(r.Last); first <= last; {
		size := 1 << 16
		for size > 1 && (first%size != 0 || first+size-1 > last) {
			size /= 2
		}
		blocks = append(blocks, portBlock{uint16(first), 16 - bits.Len(uint(size)) + 1})
		first += size
	}
	return blocks
}

func isOrBelow(path, above string) bool {
	path, above = filepath.Clean(path), filepath.Clean(above)
	return path == above || above == "/" || strings.HasPrefix(path, above+"/")
}
