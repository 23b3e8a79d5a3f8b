//go:build linux

package main

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// memoryOf is the memory of a program's policy, as the kernel accounts for it:
// what the allocator rounds up is not in it.
func memoryOf(p *ebpf.Program) (uint64, error) {
	info, err := p.Info()
	if err != nil {
		return 0, fmt.Errorf("find maps of the policy: %w", err)
	}
	ids, _ := info.MapIDs()
	var sum uint64
	for _, id := range ids {
		used, err := memoryOfMap(id)
		if err != nil {
			return 0, fmt.Errorf("find maps of the policy: %w", err)
		}
		sum += used
	}
	return sum, nil
}

// memoryOfMap is 0 for the maps that no policy fills.
func memoryOfMap(id ebpf.MapID) (uint64, error) {
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return 0, err
	}
	defer m.Close()
	if m.Type() == ebpf.ArrayOfMaps {
		var inner ebpf.MapID
		if err := m.Lookup(uint32(0), &inner); err != nil {
			return 0, err
		}
		policy, err := ebpf.NewMapFromID(inner)
		if err != nil {
			return 0, err
		}
		defer policy.Close()
		return memlock(policy)
	}
	if m.Type() != ebpf.LPMTrie {
		return 0, nil
	}
	return memlock(m)
}

func memlock(m *ebpf.Map) (uint64, error) {
	info, err := m.Info()
	if err != nil {
		return 0, err
	}
	used, _ := info.Memlock()
	return used, nil
}
