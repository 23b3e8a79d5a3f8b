//go:build linux

package engine

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/waybill-net/waybill/internal/identity"
	"github.com/waybill-net/waybill/internal/policy"
)

// Apply puts p in force, whole: every connect() sees the old policy or the
// new one. It may be called again with the same or another policy. On an
// error the old one stays.
//
// Programs, users and cgroups that p names need not exist: [Engine.Refresh]
// looks for them again.
func (e *Engine) Apply(p policy.Policy) error {
	ids, err := identity.Resolve(p) // without the lock: it asks file systems, which may take their time
	if err != nil {
		return fmt.Errorf("apply policy: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.apply(p, ids)
}

// Refresh looks up again what the policy in force names, and applies it anew
// if something has come, gone or been replaced. It reports whether it had to.
func (e *Engine) Refresh() (bool, error) {
	e.mu.Lock()
	p, generation, known := e.policy, e.generation, e.table != nil
	e.mu.Unlock()
	if !known {
		return false, nil
	}
	ids, err := identity.Resolve(p) // without the lock, as in Apply: programs wait in SetNames for their answers
	if err != nil {
		return false, fmt.Errorf("refresh policy: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.generation != generation || reflect.DeepEqual(ids, e.ids) {
		return false, nil // another policy has been looked up later
	}
	return true, e.apply(p, ids)
}

// Generation numbers the policies that were in force, since the maps were
// made.
func (e *Engine) Generation() uint32 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.generation
}

// Unmatched lists the conditions of the policy in force that can match
// nothing at present, because what they name does not exist.
func (e *Engine) Unmatched() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.policy.Unmatched(e.ids)
}

func (e *Engine) apply(p policy.Policy, ids policy.Identities) error {
	table, err := policy.Compile(p, ids)
	if err != nil {
		return err
	}
	if err := errors.Join(e.checkCgroups(table), checkClients(table)); err != nil {
		return err
	}
	inner, err := e.newInner(encode(table, e.generation+1))
	if err != nil {
		return fmt.Errorf("apply policy: %w", err)
	}
	if e.state != nil {
		err = inner.Pin(e.state.policyPath(e.generation + 1))
	}
	if err == nil {
		err = e.commit(table, inner)
	}
	if err != nil {
		inner.Unpin() // an error means that it was not pinned
		return fmt.Errorf("apply policy: %w", errors.Join(err, inner.Close()))
	}
	e.policy, e.ids = p, ids
	return nil
}

// commit builds what belongs to the new policy beside what belongs to the
// old and exchanges the two in one step. When it fails, the old policy is in
// force and nothing of the new is left.
func (e *Engine) commit(table *policy.Table, inner *ebpf.Map) error {
	generation := e.generation + 1
	keys, sets := encodeClasses(table.Classes(), generation)
	addrs, classes := e.namedClasses(table)
	named, namedSets := encodeClasses(classes, generation)
	contexts := contextKeys(table, generation)
	err := errors.Join(e.putClasses(keys, sets), e.putClasses(named, namedSets), e.putContexts(contexts, table), e.addCounters(table))
	if err == nil {
		err = e.publish(inner, e.inForce())
	}
	if err != nil {
		e.dropClasses(keys)
		e.dropClasses(named)
		e.dropContexts(contexts)
		e.dropCounters(e.kept)
		return err
	}
	e.kept = handles(table)
	e.dropCounters(e.kept)
	e.table, e.inner, e.generation, e.classes, e.contexts = table, inner, generation, keys, contexts
	e.known.asked.Purge()
	for i, addr := range addrs {
		e.known.asked.Add(addr, named[i])
	}
	e.names.add(generation, table)
	return nil
}

// inForce is what belongs to the policy in force.
func (e *Engine) inForce() generationMaps {
	m := generationMaps{inner: e.inner, classes: slices.Concat(e.classes, e.known.asked.Values()), contexts: e.contexts}
	if e.state != nil {
		m.pin = e.state.policyPath(e.generation)
	}
	return m
}

// classBatch bounds the memory of one system call: a set has 1.3 KB.
const classBatch = 1024

func (e *Engine) putClasses(keys []kernelWbClassKey, sets []kernelWbSet) error {
	for n := 0; n < len(keys); n += classBatch {
		end := min(n+classBatch, len(keys))
		if _, err := e.objects.Classes.BatchUpdate(keys[n:end], sets[n:end], nil); err != nil {
			return fmt.Errorf("put %d classes: %w", len(keys), err)
		}
	}
	return nil
}

func (e *Engine) dropClasses(keys []kernelWbClassKey) {
	for i := range keys {
		e.objects.Classes.Delete(&keys[i])
	}
}

// newInner makes the map that holds one policy.
func (e *Engine) newInner(p *kernelWbPolicy) (*ebpf.Map, error) {
	inner, err := ebpf.NewMap(e.innerMap)
	if err != nil {
		return nil, err
	}
	if err := inner.Put(uint32(0), p); err != nil {
		return nil, errors.Join(err, inner.Close())
	}
	return inner, nil
}

// contextKeys has a key for each filter that has a context.
func contextKeys(t *policy.Table, generation uint32) []kernelWbContextKey {
	var keys []kernelWbContextKey
	for i, f := range t.Filters {
		if len(f.Context) > 0 {
			keys = append(keys, kernelWbContextKey{Generation: generation, Filter: uint32(i)})
		}
	}
	return keys
}

func (e *Engine) putContexts(keys []kernelWbContextKey, t *policy.Table) error {
	for _, key := range keys {
		context := t.Filters[key.Filter].Context
		c := kernelWbContext{Size: uint32(len(context))}
		copy(c.Data[:], context)
		if err := e.objects.Contexts.Put(key, &c); err != nil {
			return fmt.Errorf("put context: %w", err)
		}
	}
	return nil
}

func (e *Engine) dropContexts(keys []kernelWbContextKey) {
	for _, key := range keys {
		e.objects.Contexts.Delete(key)
	}
}

// addCounters makes the counters of providers that have none yet.
func (e *Engine) addCounters(t *policy.Table) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	for _, p := range t.Providers {
		err := e.objects.ProviderCounters.Update(p.Handle, make([]kernelWbProviderCounts, cpus), ebpf.UpdateNoExist)
		if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
			return fmt.Errorf("put the counters of provider %q: %w", p.Name, err)
		}
	}
	return nil
}

func handles(t *policy.Table) map[uint64]bool {
	all := make(map[uint64]bool)
	for _, p := range t.Providers {
		all[p.Handle] = true
	}
	return all
}

// dropCounters deletes the counters of providers that are not among these.
func (e *Engine) dropCounters(kept map[uint64]bool) {
	var (
		handle uint64
		counts []kernelWbProviderCounts
		others []uint64
	)
	for it := e.objects.ProviderCounters.Iterate(); it.Next(&handle, &counts); {
		if !kept[handle] {
			others = append(others, handle)
		}
	}
	for _, handle := range others {
		e.objects.ProviderCounters.Delete(handle)
	}
}

func below(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != "." && rel != ".." && !strings.HasPrefix(rel, "../")
}
