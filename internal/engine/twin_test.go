//go:build linux

package engine

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/dchest/siphash"

	"github.com/waybill-net/waybill/internal/policy"
)

// The two policies of each round are random; so are the connections. Names,
// addresses and ports are drawn from small sets, so that much matches.
const (
	twinRounds = 50
	twinCases  = 4096 // as many as the kernel program takes at once
)

// TestDecisionTwin asks the kernel's decision and its Go twin about random
// connections under random policies: 200,000 cases.
func TestDecisionTwin(t *testing.T) {
	spec, err := loadTwin()
	if err != nil {
		t.Fatal(err)
	}
	var objects twinObjects
	if err := spec.LoadAndAssign(&objects, nil); err != nil {
		t.Fatal(err)
	}
	defer objects.Close()

	seen := make(map[policy.Verdict]int)
	for round := range twinRounds {
		rng := rand.New(rand.NewPCG(1, uint64(round)))
		table, err := policy.Compile(randomPolicy(rng), twinIdentities)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		putTwinPolicy(t, spec, &objects, table, uint32(round))
		named := namedCgroupIDs(table)
		queries := make([]policy.Query, twinCases)
		for i := range queries {
			queries[i] = randomQuery(rng, table)
		}
		for layer, decide := range map[kernelWbLayer]func(policy.Query) policy.Decision{
			kernelWbLayerWB_LAYER_REDIRECT:  table.Decide,
			kernelWbLayerWB_LAYER_AUTHORIZE: table.Authorize,
		} {
			for i, got := range askKernel(t, &objects, layer, named, queries) {
				want := decide(queries[i])
				if got != want {
					t.Fatalf("round %d, case %d, layer %d: %+v\nkernel %+v\ntwin   %+v", round, i, layer, queries[i], got, want)
				}
				seen[want.Verdict]++
			}
		}
	}
	t.Logf("%d cases: %v", twinRounds*twinCases, seen)
	for v := policy.Pass; v <= policy.Forbid; v++ {
		if seen[v] < 1000 {
			t.Errorf("verdict %d came up only %d times: the input is not random enough", v, seen[v])
		}
	}
}

func putTwinPolicy(t *testing.T, spec *ebpf.CollectionSpec, objects *twinObjects, table *policy.Table, generation uint32) {
	t.Helper()
	keys, sets := encodeClasses(append(table.Classes(), namedClasses(table)...), generation)
	if _, err := objects.Classes.BatchUpdate(keys, sets, nil); err != nil {
		t.Fatal(err)
	}
	inner, err := ebpf.NewMap(spec.Maps["policies"].InnerMap)
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	if err := inner.Put(uint32(0), encode(table, generation)); err != nil {
		t.Fatal(err)
	}
	if err := objects.Policies.Put(uint32(0), inner); err != nil {
		t.Fatal(err)
	}
}

func askKernel(t *testing.T, objects *twinObjects, layer kernelWbLayer, named map[uint64]bool, queries []policy.Query) []policy.Decision {
	t.Helper()
	keys, cases := make([]uint32, len(queries)), make([]twinWbCase, len(queries))
	for i, q := range queries {
		keys[i] = uint32(i)
		c := &cases[i]
		c.Query.Dst = twinWbEndpoint(encodeEndpoint(q.Dst))
		c.Query.Dst.Protocol = uint16(q.Protocol)
		c.Query.Self = int8(q.Self)
		c.Query.Down = q.Down
		c.Query.N_hops = uint8(len(q.Hops))
		c.Query.Layer = uint8(layer)
		c.Query.Process = encodeSubject(q.Process, named)
		c.Query.Origin = encodeSubject(q.Origin, named)
		for j, h := range q.Hops {
			c.Hops[j].Handle, c.Hops[j].Weight = h.Handle, h.Weight
			if h.Implied {
				c.Hops[j].Flags = uint16(kernelWbHopFlagsWB_HOP_IMPLIED)
			}
		}
	}
	if _, err := objects.Cases.BatchUpdate(keys, cases, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := objects.WbDecideCases.Test(make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	decisions := make([]policy.Decision, len(queries))
	for i := range decisions {
		if err := objects.Cases.Lookup(uint32(i), &cases[i]); err != nil {
			t.Fatal(err)
		}
		d := cases[i].Decision
		decisions[i] = policy.Decision{
			Verdict:  policy.Verdict(d.Verdict),
			Provider: int(d.Provider),
			Filter:   int(d.Filter),
			State:    policy.State(d.State),
			Bypassed: d.Bypassed,
			Shadowed: d.Shadowed,
			Excluded: d.Excluded,
		}
	}
	return decisions
}

// What the twin's policies name: each cgroup is inside the one before it.
var (
	namedPrograms  = []string{"/bin/a", "/bin/b", "/bin/gone"}
	namedUsers     = []string{"alice", "7", "nobody-here"}
	namedCgroups   = []string{"/x", "/x/y", "/x/y/z", "/other", "/gone"}
	twinIdentities = policy.Identities{
		Programs: map[string]policy.FileID{"/bin/a": {Device: 1, Inode: 1 << 40}, "/bin/b": {Device: 2, Inode: 1 << 40}},
		Users:    map[string]uint32{"alice": 1000},
		Cgroups: map[string]policy.CgroupID{
			"/x": {ID: 11 << 32, Level: 1}, "/x/y": {ID: 12 << 32, Level: 2}, "/x/y/z": {ID: 13 << 32, Level: 3}, "/other": {ID: 14, Level: 1},
		},
	}
)

// namedAddresses are what names lead to, in the twin's world.
var namedAddresses = map[netip.Addr][]string{
	netip.MustParseAddr("192.0.2.0"):  {"www.example.org"},
	netip.MustParseAddr("192.0.2.1"):  {"example.org", "deep.below.example.net"},
	netip.MustParseAddr("127.0.0.1"):  {"local.example.org"},
	netip.MustParseAddr("2001:db8::"): {"example.net"},
	netip.MustParseAddr("::1"):        {"other.test"},
}

func namedClasses(table *policy.Table) []policy.Class {
	var classes []policy.Class
	for addr, names := range namedAddresses {
		if class, asked := table.Named(addr, names); asked {
			classes = append(classes, class)
		}
	}
	return classes
}

// encodeSubject finds the deepest cgroup that a filter can name, as the
// kernel programs do before they decide.
func encodeSubject(p policy.Process, named map[uint64]bool) twinWbSubject {
	s := twinWbSubject{Inode: p.Program.Inode, Device: uint32(p.Program.Device), Uid: p.UID}
	for _, id := range p.Cgroups {
		if named[id] {
			s.Cgroup = id
		}
	}
	return s
}

// namedCgroupIDs has the cgroups that some filter of the table names.
func namedCgroupIDs(table *policy.Table) map[uint64]bool {
	named := make(map[uint64]bool)
	for _, c := range table.Classes() {
		if c.Dimension == policy.DimCgroup && c.Exact {
			named[binary.LittleEndian.Uint64(c.Data[:])] = true
		}
	}
	return named
}

func randomProcess(rng *rand.Rand) policy.Process {
	return policy.Process{
		Program: []policy.FileID{{Device: 1, Inode: 1 << 40}, {Device: 2, Inode: 1 << 40}, {Device: 1, Inode: 2}}[rng.IntN(3)],
		UID:     []uint32{0, 7, 1000}[rng.IntN(3)],
		Cgroups: [][]uint64{{1}, {1, 11 << 32}, {1, 11 << 32, 12 << 32, 99}, {1, 11 << 32, 12 << 32, 13 << 32}, {1, 14}}[rng.IntN(5)],
	}
}

// some returns up to two of names, most often none.
func some(rng *rand.Rand, names []string) []string {
	if rng.IntN(4) > 0 {
		return nil
	}
	return []string{names[rng.IntN(len(names))], names[rng.IntN(len(names))]}
}

func randomFilter(rng *rand.Rand, provider string) policy.Filter {
	f := policy.Filter{
		Provider:         provider,
		Weight:           int32(rng.IntN(3)),
		Action:           policy.Action(rng.IntN(3)),
		Programs:         some(rng, namedPrograms),
		OriginalPrograms: some(rng, namedPrograms),
		Users:            some(rng, namedUsers),
		Cgroups:          some(rng, namedCgroups),
		OriginalCgroups:  some(rng, namedCgroups),
		Domains:          some(rng, []string{"example.org", "*.example.org", "*.example.net", "example.net", "example.com"}),
	}
	for range rng.IntN(3) {
		f.Destination = append(f.Destination, randomPrefix(rng))
	}
	if rng.IntN(4) == 0 {
		f.NotDestination = append(f.NotDestination, randomPrefix(rng))
	}
	for range rng.IntN(3) {
		first := uint16(rng.IntN(4))
		f.Ports = append(f.Ports, policy.PortRange{First: first, Last: first + uint16(rng.IntN(3))})
	}
	f.Protocols = [][]policy.Protocol{nil, {policy.TCP}, {policy.UDP}, {policy.UDP, policy.TCP}}[rng.IntN(4)]
	for range rng.IntN(2) {
		f.States = append(f.States, []policy.State{policy.NotRedirected, policy.RedirectedByOther}[rng.IntN(2)])
	}
	return f
}

func randomPrefix(rng *rand.Rand) netip.Prefix {
	addr := randomAddr(rng)
	return netip.PrefixFrom(addr, rng.IntN(addr.BitLen()+1))
}

func randomPolicy(rng *rand.Rand) policy.Policy {
	p := policy.Policy{TrackingOff: rng.IntN(8) == 0}
	n := 1 + rng.IntN(policy.MaxProviders)
	if rng.IntN(2) == 0 {
		n = 1 + rng.IntN(4)
	}
	filters := []int{4, 40, 150}[rng.IntN(3)] // a provider; up to all that there is room for
	for i := range n {
		listen := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(1 + rng.IntN(2))}), uint16(7000+i))
		provider := policy.Provider{
			Name:   fmt.Sprintf("p%d", i),
			Weight: int32(rng.IntN(5) - 2),
			Listen: listen,
			OnDown: policy.OnDown(rng.IntN(2)),
			Shadow: rng.IntN(8) == 0,
		}
		if rng.IntN(2) == 0 {
			provider.Listen6 = netip.AddrPortFrom(netip.IPv6Loopback(), listen.Port())
		}
		if rng.IntN(2) == 0 {
			provider.UDP = netip.AddrPortFrom(listen.Addr(), listen.Port()+1000)
		}
		p.Providers = append(p.Providers, provider)
		for range rng.IntN(filters) {
			p.Filters = append(p.Filters, randomFilter(rng, provider.Name))
		}
	}
	return p
}

// randomAddr draws from a few addresses of every kind that the decision
// treats differently, with a few random bits at the end.
func randomAddr(rng *rand.Rand) netip.Addr {
	addrs := [...]string{
		"0.0.0.0", "127.0.0.1", "127.0.0.2", "127.255.0.0", "128.0.0.0", "192.0.2.0", "10.0.0.0",
		"::", "::1", "::2", "fe80::1", "fe7f::1", "febf::1", "fec0::1", "2001:db8::", "::ffff:192.0.2.1", "::fffe:0:0",
	}
	a := netip.MustParseAddr(addrs[rng.IntN(len(addrs))])
	if rng.IntN(2) == 0 {
		b := a.As16()
		b[15] ^= byte(rng.IntN(4))
		a = netip.AddrFrom16(b)
	}
	if rng.IntN(4) > 0 {
		a = a.Unmap()
	}
	return a
}

// resolveAny takes an address for the one that connect() takes it for.
func resolveAny(a netip.Addr) netip.Addr {
	switch a = a.Unmap(); {
	case a == netip.IPv4Unspecified():
		return netip.MustParseAddr("127.0.0.1")
	case a == netip.IPv6Unspecified():
		return netip.IPv6Loopback()
	}
	return a
}

func randomQuery(rng *rand.Rand, t *policy.Table) policy.Query {
	q := policy.Query{Dst: netip.AddrPortFrom(randomAddr(rng), uint16(rng.IntN(5))), Self: -1, Process: randomProcess(rng), Origin: randomProcess(rng)}
	q.Protocol = []policy.Protocol{policy.TCP, policy.UDP}[rng.IntN(2)]
	switch p := t.Providers[rng.IntN(len(t.Providers))]; rng.IntN(20) {
	case 0:
		q.Dst = p.Listen
	case 1:
		if p.UDP.IsValid() {
			q.Dst = p.UDP
		}
	}
	q.Names = namedAddresses[resolveAny(q.Dst.Addr())]
	switch rng.IntN(4) {
	case 0:
		q.Self = rng.IntN(len(t.Providers))
	case 1, 2:
		for range rng.IntN(policy.MaxHops + 1) {
			p := t.Providers[rng.IntN(len(t.Providers))]
			hop := policy.Hop{Handle: p.Handle, Weight: p.Weight, Implied: rng.IntN(8) == 0}
			if rng.IntN(3) == 0 {
				hop.Handle = rng.Uint64() // of a provider that is gone
			}
			q.Hops = append(q.Hops, hop)
		}
	}
	switch rng.IntN(4) {
	case 0:
		q.Down = rng.Uint64()
	case 1:
		q.Down = rng.Uint64() & rng.Uint64()
	}
	return q
}

// TestSeal compares the seal with an independent SipHash-2-4-128.
func TestSeal(t *testing.T) {
	var objects twinObjects
	if err := loadTwinObjects(&objects, nil); err != nil {
		t.Fatal(err)
	}
	defer objects.Close()
	rng := rand.New(rand.NewPCG(2, 3))
	for n := range 64 {
		c := twinWbSealInput{N_words: uint32(n)}
		c.Key.K = [2]uint64{rng.Uint64(), rng.Uint64()}
		var message []byte
		for i := range n {
			c.Words[i] = rng.Uint64()
			message = binary.LittleEndian.AppendUint64(message, c.Words[i])
		}
		if err := objects.SealCases.Put(uint32(0), &c); err != nil {
			t.Fatal(err)
		}
		if _, _, err := objects.WbSealCase.Test(make([]byte, 64)); err != nil {
			t.Fatal(err)
		}
		if err := objects.SealCases.Lookup(uint32(0), &c); err != nil {
			t.Fatal(err)
		}
		lo, hi := siphash.Hash128(c.Key.K[0], c.Key.K[1], message)
		if c.Seal.Mac != [2]uint64{lo, hi} {
			t.Fatalf("%d words: kernel %x, reference %x %x", n, c.Seal.Mac, lo, hi)
		}
	}
}
