//go:build linux

package engine

import (
	"fmt"
	"slices"
	"sync"

	"github.com/waybill-net/waybill/internal/policy"
)

// names makes the numbers in events and records readable again. Those of
// former policies stay for a while: events come after the fact.
type names struct {
	mu          sync.RWMutex
	byHandle    map[uint64]string // of providers; former ones stay, for the flows that have been through them
	generations map[uint32]*generationNames
}

// generationNames are those of one policy, by index.
type generationNames struct{ providers, filters []string }

const (
	keptGenerations = 64
	keptHandles     = 4096
)

func (n *names) add(generation uint32, t *policy.Table) {
	g := new(generationNames)
	for _, p := range t.Providers {
		g.providers = append(g.providers, p.Name)
	}
	for _, f := range t.Filters {
		g.filters = append(g.filters, f.Name)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if before := n.generations[generation-1]; before != nil && slices.Equal(before.filters, g.filters) && slices.Equal(before.providers, g.providers) {
		g = before // as after Refresh
	}
	if n.generations == nil {
		n.generations = make(map[uint32]*generationNames)
	}
	n.generations[generation] = g
	delete(n.generations, generation-keptGenerations)
	if len(n.byHandle) > keptHandles || n.byHandle == nil {
		n.byHandle = make(map[uint64]string)
	}
	for _, p := range t.Providers {
		n.byHandle[p.Handle] = p.Name
	}
}

// provider gives the handle in hexadecimal for a provider that no policy so
// far has named.
func (n *names) provider(handle uint64) string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if name, ok := n.byHandle[handle]; ok {
		return name
	}
	return fmt.Sprintf("%016x", handle)
}

// providerAt names a provider by its place in the policy that decided, unless
// that policy is long gone.
func (n *names) providerAt(generation uint32, i int) string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if g := n.generations[generation]; g != nil && i < len(g.providers) {
		return g.providers[i]
	}
	return fmt.Sprintf("#%d", i)
}

// filterAt is empty for a filter of a policy that is long gone.
func (n *names) filterAt(generation uint32, i int) string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if g := n.generations[generation]; g != nil && i < len(g.filters) {
		return g.filters[i]
	}
	return ""
}
