//go:build linux

package engine

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/waybill-net/waybill/internal/policy"
)

// encode lays the table out as the kernel programs read it, all but its
// classes.
func encode(t *policy.Table, generation uint32) *kernelWbPolicy {
	k := &kernelWbPolicy{
		Generation:  generation,
		N_providers: uint32(len(t.Providers)),
		End:         [2]uint32{uint32(t.NumRedirects), uint32(len(t.Filters))},
		Flags:       encodeFlags(t),
		Ports:       t.WantedPorts(),
	}
	for i, p := range t.Providers {
		k.Providers[i] = kernelWbProvider{
			Handle:      p.Handle,
			Cgroup:      p.ID.ID,
			CgroupLevel: p.ID.Level,
			Proxies: [4]kernelWbEndpoint{
				encodeEndpoint(p.Listen), encodeEndpoint(p.Listen6), encodeEndpoint(p.UDP), encodeEndpoint(p.UDP6),
			},
			Weight:     p.Weight,
			OnDown:     encodeOnDown(p.OnDown),
			Flags:      encodeProviderFlags(p),
			End:        [2]uint32{uint32(p.Redirects.End), uint32(p.Authorizes.End)},
			StuckAfter: uint32(p.StuckLimit().Microseconds()),
		}
	}
	for i, f := range t.Filters {
		k.Filters[i].Provider = uint8(f.Owner)
		k.Filters[i].Action = encodeAction(f.Action)
		k.Filters[i].States = f.StateMask()
		k.Filters[i].Flags = encodeFilterFlags(f)
	}
	for i, s := range t.States() {
		encodeSet(&k.States[i], &s)
	}
	return k
}

func encodeFlags(t *policy.Table) uint32 {
	var flags kernelWbPolicyFlags
	if t.TrackingOff {
		flags |= kernelWbPolicyFlagsWB_TRACKING_OFF
	}
	if t.Asks(policy.DimProgram, policy.DimOriginalProgram) {
		flags |= kernelWbPolicyFlagsWB_ASKS_PROGRAM
	}
	if t.WantsUDP() {
		flags |= kernelWbPolicyFlagsWB_WANTS_UDP
	}
	if t.DropsQUIC() {
		flags |= kernelWbPolicyFlagsWB_HAS_QUIC_DROPS
	}
	if t.Asks(policy.DimUser) {
		flags |= kernelWbPolicyFlagsWB_ASKS_USER
	}
	if t.Asks(policy.DimCgroup, policy.DimOriginalCgroup) {
		flags |= kernelWbPolicyFlagsWB_ASKS_CGROUP
	}
	return uint32(flags)
}

func encodeFilterFlags(f policy.TableFilter) uint8 {
	var flags kernelWbFilterFlags
	if len(f.Context) > 0 {
		flags |= kernelWbFilterFlagsWB_FILTER_HAS_CONTEXT
	}
	if f.DropQUIC {
		flags |= kernelWbFilterFlagsWB_DROPS_QUIC
	}
	return uint8(flags)
}

func encodeOnDown(d policy.OnDown) uint16 {
	if d == policy.Block {
		return uint16(kernelWbOnDownWB_BLOCK)
	}
	return uint16(kernelWbOnDownWB_BYPASS)
}

func encodeProviderFlags(p policy.TableProvider) uint16 {
	var flags kernelWbProviderFlags
	if p.Shadow {
		flags |= kernelWbProviderFlagsWB_SHADOW
	}
	if p.Emulate == policy.EmulateTPROXY {
		flags |= kernelWbProviderFlagsWB_EMULATE_TPROXY
	}
	return uint16(flags)
}

func encodeAction(a policy.Action) uint8 {
	switch a {
	case policy.ActionPermit:
		return uint8(kernelWbActionWB_ACTION_PERMIT)
	case policy.ActionBlock:
		return uint8(kernelWbActionWB_ACTION_BLOCK)
	}
	return uint8(kernelWbActionWB_ACTION_REDIRECT)
}

// classFixedBits are those of generation and dimension: WB_CLASS_FIXED_BITS.
const classFixedBits = 64

func encodeClasses(classes []policy.Class, generation uint32) ([]kernelWbClassKey, []kernelWbSet) {
	keys, sets := make([]kernelWbClassKey, len(classes)), make([]kernelWbSet, len(classes))
	for i := range classes {
		c := &classes[i]
		keys[i] = kernelWbClassKey{
			PrefixBits: uint32(classFixedBits + c.Bits),
			Generation: generation,
			Dimension:  uint32(c.Dimension),
			Data:       words(c.Data),
		}
		encodeSet(&sets[i], &c.Members)
		if c.Exact {
			sets[i].Exact = 1
		}
	}
	return keys, sets
}

func encodeSet(k *kernelWbSet, s *policy.Set) {
	k.Words = *s
	for i, w := range s {
		if w != 0 {
			k.Summary[i/64] |= 1 << (i % 64)
		}
	}
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

// checkClients refuses filters that want to send a provider's own processes
// to it: they are never redirected there, so a client among them would go past.
func checkClients(t *policy.Table) error {
	for _, f := range t.Filters[:t.NumRedirects] {
		p := &t.Providers[f.Owner]
		for _, dir := range f.Cgroups {
			if p.Cgroup != "" && (filepath.Clean(dir) == filepath.Clean(p.Cgroup) || below(dir, p.Cgroup)) {
				return fmt.Errorf("filter %q: cgroup %s holds processes of provider %q itself, which are never redirected to it; give the proxy a cgroup of its own", f.Name, dir, p.Name)
			}
		}
	}
	return nil
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
			if q.Cgroup != "" && (filepath.Clean(p.Cgroup) == filepath.Clean(q.Cgroup) || below(p.Cgroup, q.Cgroup) || below(q.Cgroup, p.Cgroup)) {
				return fmt.Errorf("providers %q and %q: cgroups %s and %s overlap; give each provider one of its own", q.Name, p.Name, q.Cgroup, p.Cgroup)
			}
		}
	}
	return nil
}
