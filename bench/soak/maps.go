//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
)

// kernelMaps is what the pinned maps hold.
type kernelMaps struct {
	entries map[string]int // of the maps that are empty when no connection is open
	memory  uint64         // of all maps, as the kernel accounts for them
}

// policyMap is the one hash map that a policy fills.
const policyMap = "contexts"

// readMaps reads them past the daemon, which may not run.
func readMaps() (kernelMaps, error) {
	k := kernelMaps{entries: make(map[string]int)}
	dir := filepath.Join(stateDir, "maps")
	files, err := os.ReadDir(dir)
	if err != nil {
		return k, err
	}
	for _, file := range files {
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, file.Name()), nil)
		if err != nil {
			return k, fmt.Errorf("open map %s: %w", file.Name(), err)
		}
		err = k.add(file.Name(), m)
		if err = errors.Join(err, m.Close()); err != nil {
			return k, fmt.Errorf("read map %s: %w", file.Name(), err)
		}
	}
	return k, nil
}

func (k *kernelMaps) add(name string, m *ebpf.Map) error {
	info, err := m.Info()
	if err != nil {
		return err
	}
	used, _ := info.Memlock()
	k.memory += used
	if m.Type() != ebpf.Hash || name == policyMap {
		return nil
	}
	k.entries[name] = 0
	for key, err := m.NextKeyBytes(nil); ; key, err = m.NextKeyBytes(key) {
		if err != nil || key == nil {
			return err
		}
		k.entries[name]++
	}
}
