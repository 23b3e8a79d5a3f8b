package policy

import (
	"encoding/binary"
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

	// DimDomain is none to the kernel programs: an address that names led to is
	// a class of destinations.
	DimDomain
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
// Addresses that names led to have classes beside: see [Table.Named].
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
			DimDestination: len(f.Destination) + len(f.NotDestination), DimPort: 1,
			DimProgram: len(f.Programs), DimOriginalProgram: len(f.OriginalPrograms),
			DimUser: len(f.Users), DimCgroup: len(f.Cgroups), DimOriginalCgroup: len(f.OriginalCgroups),
		}
		return slices.ContainsFunc(dimensions, func(d Dimension) bool { return asked[d] > 0 })
	})
}

// WantedPorts has bit p for each port p that some filter wants of TCP, and
// behind those of TCP all of UDP: also those of which it wants none.
func (t *Table) WantedPorts() [2048]uint64 {
	var wanted [2048]uint64
	for i := range t.Filters {
		protocols := t.Filters[i].WantedProtocols()
		if t.Filters[i].DropQUIC {
			protocols = []Protocol{TCP, UDP}
		}
		for _, protocol := range protocols {
			of := wanted[:1024]
			if protocol == UDP {
				of = wanted[1024:]
			}
			for _, r := range portsOf(&t.Filters[i]) {
				for p := int(r.First); p <= int(r.Last); p++ {
					of[p/64] |= 1 << (p % 64)
				}
			}
		}
	}
	return wanted
}

// WantsUDP reports whether any filter does, or is to be asked about it.
func (t *Table) WantsUDP() bool {
	return slices.ContainsFunc(t.Filters, func(f TableFilter) bool { return slices.Contains(f.Protocols, UDP) || f.DropQUIC })
}

// DropsQUIC reports whether any filter does.
func (t *Table) DropsQUIC() bool {
	return slices.ContainsFunc(t.Filters, func(f TableFilter) bool { return f.DropQUIC })
}

// WantedProtocols returns Protocols or their default.
func (f *Filter) WantedProtocols() []Protocol {
	if len(f.Protocols) == 0 {
		return []Protocol{TCP}
	}
	return f.Protocols
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

func isOrBelow(path, above string) bool {
	path, above = filepath.Clean(path), filepath.Clean(above)
	return path == above || above == "/" || strings.HasPrefix(path, above+"/")
}
