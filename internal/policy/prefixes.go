package policy

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

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
		if len(f.Domains) > 0 {
			continue // it matches no address before somebody tells its name
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
		for _, protocol := range t.Filters[i].WantedProtocols() {
			for _, r := range portsOf(&t.Filters[i]) {
				for _, block := range r.blocks() {
					data := [16]byte{byte(protocol)}
					binary.BigEndian.PutUint16(data[2:], block.first)
					n := ns.at(data, 16+block.bits)
					n.in = append(n.in, i)
				}
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
