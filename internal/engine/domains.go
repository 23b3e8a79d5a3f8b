package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/waybill-net/waybill/internal/policy"
)

// SetNames says which names lead to an address at present, for filters that
// ask for names; none: no name is known. When it returns, every connect() sees
// it. What it was told outlives changes of policy, not the engine.
func (e *Engine) SetNames(addr netip.Addr, names []string) error {
	addr = addr.WithZone("").Unmap()
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(names) == 0 {
		delete(e.named, addr)
	} else {
		if e.named == nil {
			e.named = make(map[netip.Addr][]string)
		}
		e.named[addr] = names
	}
	if e.table == nil || !e.table.AsksNames() {
		return nil
	}
	if err := e.putNamed(addr, names); err != nil {
		return fmt.Errorf("set names of %s: %w", addr, err)
	}
	return nil
}

// putNamed puts the class of an address beside those of the policy in force,
// or takes it away. A class that the policy has for the same address itself
// stays, and means it without names again.
func (e *Engine) putNamed(addr netip.Addr, names []string) error {
	class, asked := e.table.Named(addr, names)
	keys, sets := encodeClasses([]policy.Class{class}, e.generation)
	key := keys[0]
	_, there := e.addresses[key]
	switch {
	case asked:
		e.addresses[key] = struct{}{}
		return e.objects.Classes.Put(&key, &sets[0])
	case !there:
		return nil
	}
	delete(e.addresses, key)
	if slices.Contains(e.classes, key) {
		_, sets = encodeClasses([]policy.Class{e.table.Unnamed(addr)}, e.generation)
		return e.objects.Classes.Put(&key, &sets[0])
	}
	if err := e.objects.Classes.Delete(&key); !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	return nil
}

// namedClasses are those of the addresses that filters of a table ask for by
// their names.
func (e *Engine) namedClasses(t *policy.Table) []policy.Class {
	if !t.AsksNames() {
		return nil
	}
	var classes []policy.Class
	for addr, names := range e.named {
		if class, asked := t.Named(addr, names); asked {
			classes = append(classes, class)
		}
	}
	return classes
}
