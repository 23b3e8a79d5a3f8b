package policy

import (
	"bytes"
	"net/netip"
	"sort"

	"github.com/waybill-net/waybill/internal/domain"
)

// AsksNames reports whether any filter does.
func (t *Table) AsksNames() bool { return len(t.byDomain) > 0 }

// Named is the class of an address as a destination that these names led to.
// False: no filter asks for any of them, and it is an address like any other.
func (t *Table) Named(addr netip.Addr, names []string) (c Class, asked bool) {
	var meant []int
	for _, name := range names {
		for pattern := range domain.Patterns(name) {
			meant = append(meant, t.byDomain[pattern]...)
		}
	}
	if len(meant) == 0 {
		return Class{}, false
	}
	c = Class{Dimension: DimDestination, Data: addr.As16(), Bits: 128}
	c.Members = t.spaces.around(c.Data).Members
	for _, i := range meant {
		if t.Filters[i].matchesAddr(addr) {
			c.Members.add(i)
		}
	}
	return c, true
}

// Single is the class that a table whose filters ask for names has for an
// address alone, without any name. False: its class is that of a prefix.
func (t *Table) Single(addr netip.Addr) (Class, bool) {
	c := t.spaces.around(addr.As16())
	return *c, c.Bits == 128
}

// spaces finds the class of a destination as the kernel does: that of the
// longest prefix around it.
type spaces struct {
	classes []Class // each before those inside it, as nodes.classes sorts them
	outer   []int   // of each class the innermost around it; of the first, around all, itself
}

func newSpaces(classes []Class) *spaces {
	s := &spaces{classes, make([]int, len(classes))}
	for i := 1; i < len(classes); i++ {
		s.outer[i] = s.containing(i-1, classes[i].Data)
	}
	return s
}

// around looks from the last class that does not begin behind the data: what
// contains them is that one, or around it.
func (s *spaces) around(data [16]byte) *Class {
	behind := sort.Search(len(s.classes), func(i int) bool { return bytes.Compare(s.classes[i].Data[:], data[:]) > 0 })
	return &s.classes[s.containing(behind-1, data)]
}

// containing goes outwards from class i.
func (s *spaces) containing(i int, data [16]byte) int {
	for commonBits(s.classes[i].Data, data) < s.classes[i].Bits {
		i = s.outer[i]
	}
	return i
}
