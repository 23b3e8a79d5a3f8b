package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/waybill-net/waybill/internal/cgroup"
	"github.com/waybill-net/waybill/internal/policy"
)

// Apply puts p in force, whole: every connect() sees the old policy or the
// new one. It may be called again with the same or another policy. On an
// error the old one stays.
func (e *Engine) Apply(p policy.Policy) error {
	table, err := policy.Compile(p)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()

	encoded, err := e.encode(table)
	if err != nil {
		return err
	}
	inner, err := e.newInner(encoded)
	if err != nil {
		return fmt.Errorf("apply policy: %w", err)
	}
	if err := e.commit(table, inner); err != nil {
		return fmt.Errorf("apply policy: %w", errors.Join(err, inner.Close()))
	}
	return nil
}

// commit builds what belongs to the new policy beside what belongs to the
// old and exchanges the two in one step. When it fails, the old policy is in
// force and nothing of the new is left.
func (e *Engine) commit(table *policy.Table, inner *ebpf.Map) error {
	generation := e.generation + 1
	err := errors.Join(e.putContexts(generation, table), e.addCounters(table))
	if err == nil {
		// From here on connections see the new policy. The kernel waits for the
		// programs that still use the old one before the call returns.
		err = e.objects.Policies.Put(uint32(0), inner)
	}
	if err != nil {
		e.dropContexts(generation, table)
		e.dropCounters(table, e.table)
		return err
	}
	e.retire(table)
	e.table, e.inner, e.generation = table, inner, generation
	for _, p := range table.Providers {
		e.names[p.Handle] = p.Name // names of former providers stay, for the flows that have been through them
	}
	return nil
}

// retire takes away what only the old policy needed. An error here would
// leave a few bytes behind until Close; the new policy is in force all the same.
func (e *Engine) retire(next *policy.Table) {
	if e.table == nil {
		return
	}
	e.dropContexts(e.generation, e.table)
	e.dropCounters(e.table, next)
	e.inner.Close()
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

func (e *Engine) putContexts(generation uint32, t *policy.Table) error {
	for i, f := range t.Filters {
		if len(f.Context) == 0 {
			continue
		}
		c := kernelWbContext{Size: uint32(len(f.Context))}
		copy(c.Data[:], f.Context)
		if err := e.objects.Contexts.Put(kernelWbContextKey{Generation: generation, Filter: uint32(i)}, &c); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) dropContexts(generation uint32, t *policy.Table) {
	for i, f := range t.Filters {
		if len(f.Context) > 0 {
			e.objects.Contexts.Delete(kernelWbContextKey{Generation: generation, Filter: uint32(i)})
		}
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
			return err
		}
	}
	return nil
}

// dropCounters deletes the counters of providers of t that keep does not have.
func (e *Engine) dropCounters(t, keep *policy.Table) {
	kept := make(map[uint64]bool)
	if keep != nil {
		for _, p := range keep.Providers {
			kept[p.Handle] = true
		}
	}
	for _, p := range t.Providers {
		if !kept[p.Handle] {
			e.objects.ProviderCounters.Delete(p.Handle)
		}
	}
}

// encode lays the table out as the kernel programs read it.
func (e *Engine) encode(t *policy.Table) (*kernelWbPolicy, error) {
	k := &kernelWbPolicy{
		Generation:  e.generation + 1,
		N_providers: uint32(len(t.Providers)),
		N_filters:   uint32(len(t.Filters)),
	}
	if t.TrackingOff {
		k.Flags |= uint32(kernelWbPolicyFlagsWB_TRACKING_OFF)
	}
	if err := e.checkCgroups(t); err != nil {
		return nil, err
	}
	for i, p := range t.Providers {
		id, err := identify(p.Cgroup)
		if err != nil {
			return nil, fmt.Errorf("provider %q: %w", p.Name, err)
		}
		k.Providers[i] = kernelWbProvider{
			Handle:      p.Handle,
			Cgroup:      id.ID,
			CgroupLevel: id.Level,
			Proxy4:      encodeEndpoint(p.Listen),
			Proxy6:      encodeEndpoint(p.Listen6),
			Weight:      p.Weight,
			OnDown:      encodeOnDown(p.OnDown),
			FirstFilter: uint32(p.FirstFilter),
			N_filters:   uint32(p.NumFilters),
		}
	}
	for i, f := range t.Filters {
		k.Filters[i] = encodeFilter(f)
	}
	return k, nil
}

// checkCgroups refuses process sets that overlap, or that take in everything:
// a process could then not be told to be one provider's rather than another's.
func (e *Engine) checkCgroups(t *policy.Table) error {
	for i, p := range t.Providers {
		if p.Cgroup == "" {
			continue
		}
		if !below(p.Cgroup, e.scope) {
			return fmt.Errorf("provider %q: cgroup %s is not below the scope %s, so its sockets would not be seen", p.Name, p.Cgroup, e.scope)
		}
		for _, q := range t.Providers[:i] {
			if q.Cgroup != "" && (p.Cgroup == q.Cgroup || below(p.Cgroup, q.Cgroup) || below(q.Cgroup, p.Cgroup)) {
				return fmt.Errorf("providers %q and %q: cgroups %s and %s overlap; give each provider one of its own", q.Name, p.Name, q.Cgroup, p.Cgroup)
			}
		}
	}
	return nil
}

func below(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != "." && rel != ".." && !strings.HasPrefix(rel, "../")
}

// identify returns the zero ID for a provider without processes: nothing that
// listens is then taken for its proxy.
func identify(path string) (cgroup.ID, error) {
	if path == "" {
		return cgroup.ID{}, nil
	}
	return cgroup.Identify(path)
}

func encodeOnDown(d policy.OnDown) uint32 {
	if d == policy.Block {
		return uint32(kernelWbOnDownWB_BLOCK)
	}
	return uint32(kernelWbOnDownWB_BYPASS)
}

func encodeFilter(f policy.TableFilter) kernelWbFilter {
	k := kernelWbFilter{PortFirst: f.Ports.First, PortLast: f.Ports.Last}
	bits := f.Prefix.Bits()
	if f.Prefix.Addr().Is4() {
		bits += 96
		k.Flags |= uint16(kernelWbFilterFlagsWB_FILTER_IPV4)
	}
	if f.Local {
		k.Flags |= uint16(kernelWbFilterFlagsWB_FILTER_LOCAL)
	}
	if len(f.Context) > 0 {
		k.Flags |= uint16(kernelWbFilterFlagsWB_FILTER_CONTEXT)
	}
	var mask [16]byte
	for i := range bits {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	k.Prefix = encodeAddr(f.Prefix.Addr())
	k.Mask = words(mask)
	return k
}

func encodeEndpoint(a netip.AddrPort) kernelWbEndpoint {
	if !a.IsValid() {
		return kernelWbEndpoint{}
	}
	return kernelWbEndpoint{Addr: encodeAddr(a.Addr()), Port: a.Port()<<8 | a.Port()>>8}
}

// encodeAddr gives the address IPv4-mapped, each word in network byte order.
func encodeAddr(a netip.Addr) [4]uint32 { return words(a.As16()) }

func words(b [16]byte) (w [4]uint32) {
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}

func decodeEndpoint(k kernelWbEndpoint) netip.AddrPort {
	var b [16]byte
	for i, w := range k.Addr {
		binary.NativeEndian.PutUint32(b[4*i:], w)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(b).Unmap(), k.Port<<8|k.Port>>8)
}
