//go:build linux

package engine

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/waybill-net/waybill/internal/policy"
)

// maxAsked bounds the addresses that filters ask for by their names and that
// the kernel knows: each takes 1.3 KB of its memory.
const maxAsked = 16384

// known is what SetNames was told, and what of it the kernel has. Both are in
// the order in which it was told.
type known struct {
	names *simplelru.LRU[netip.Addr, []string]         // all, as many as whoever tells them remembers
	asked *simplelru.LRU[netip.Addr, kernelWbClassKey] // those that some filter asks for
}

func newKnown() known {
	return known{newTold[[]string](math.MaxInt), newTold[kernelWbClassKey](maxAsked)}
}

func newTold[V any](size int) *simplelru.LRU[netip.Addr, V] {
	told, err := simplelru.NewLRU[netip.Addr, V](size, nil)
	if err != nil {
		panic(err) // it refuses only sizes that are not positive
	}
	return told
}

// SetNames says which names lead to an address at present, for filters that
// ask for names; none: no name is known. When it returns, every connect() sees
// it. What it was told outlives changes of policy, not the engine. Of the
// addresses that filters ask for, those count that were told last: 16,384.
//
// An error wraps ErrUnknownPolicy if the policy in force was adopted: what its
// filters ask for is not known. What was told counts from the next Apply on.
func (e *Engine) SetNames(addr netip.Addr, names []string) error {
	addr = addr.WithZone("").Unmap()
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(names) == 0 {
		e.known.names.Remove(addr)
	} else {
		e.known.names.Add(addr, names)
	}
	var err error
	switch {
	case e.table != nil:
		err = e.putNamed(addr, names)
	case e.inner != nil:
		err = ErrUnknownPolicy
	}
	if err != nil {
		return fmt.Errorf("set names of %s: %w", addr, err)
	}
	return nil
}

// putNamed puts the class of an address beside those of the policy in force,
// or takes it away.
func (e *Engine) putNamed(addr netip.Addr, names []string) error {
	class, asked := e.table.Named(addr, names)
	if !asked {
		return e.dropNamed(addr)
	}
	if oldest, _, _ := e.known.asked.GetOldest(); e.known.asked.Len() == maxAsked && !e.known.asked.Contains(addr) {
		if err := e.dropNamed(oldest); err != nil {
			return err
		}
	}
	key, err := e.putClass(class)
	if err == nil {
		e.known.asked.Add(addr, key)
	}
	return err
}

// dropNamed takes the class of an address away, if it has one of its own. A
// class that the policy has for the same address stays, and means it without
// names again.
func (e *Engine) dropNamed(addr netip.Addr) error {
	key, there := e.known.asked.Peek(addr)
	if !there {
		return nil
	}
	e.known.asked.Remove(addr)
	if class, ok := e.table.Single(addr); ok {
		_, err := e.putClass(class)
		return err
	}
	if err := e.objects.Classes.Delete(&key); !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	return nil
}

func (e *Engine) putClass(class policy.Class) (kernelWbClassKey, error) {
	keys, sets := encodeClasses([]policy.Class{class}, e.generation)
	return keys[0], e.objects.Classes.Put(&keys[0], &sets[0])
}

// namedClasses are those of the addresses that filters of a table ask for by
// their names: of those that were told last, the oldest first.
func (e *Engine) namedClasses(t *policy.Table) (addrs []netip.Addr, classes []policy.Class) {
	if !t.AsksNames() {
		return nil, nil
	}
	for _, addr := range slices.Backward(e.known.names.Keys()) {
		names, _ := e.known.names.Peek(addr)
		if class, asked := t.Named(addr, names); asked {
			addrs, classes = append(addrs, addr), append(classes, class)
		}
		if len(classes) == maxAsked {
			break
		}
	}
	slices.Reverse(addrs)
	slices.Reverse(classes)
	return addrs, classes
}
