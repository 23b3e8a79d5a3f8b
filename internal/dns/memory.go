package dns

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	defaultFloor     = time.Minute
	defaultAddresses = 65536
	longest          = 24 * time.Hour
	namesPerAddress  = 4
	learntPerAnswer  = 64 // far more than real answers have: nobody's single answer shall push out the others'
)

// Memory knows which names have lately led to an address: it learns from the
// answers of resolvers that pass by. The zero value is ready. Its methods may
// be called concurrently; its fields are set before.
//
// It tells people a name where there is an address, and filters that ask for
// names which addresses they mean. Neither can rely on it:
//
//   - Names share addresses. One of a content delivery network has thousands,
//     and the newest is not always the one of the connection at hand.
//   - Whoever owns a name can point it at an address of somebody else.
//   - What it can not read it does not learn: encrypted DNS (DoH, DoT, DoQ),
//     hosts files, addresses that programs have built in.
//   - Caches of programs outlive it: they may go on with an answer for longer
//     than its time to live, or have it from before the Memory began.
type Memory struct {
	// Floor is for how long an answer is remembered at least, however soon it
	// is to be asked for again: connections outlive it. 0 is a minute. The
	// longest that anything is remembered is a day.
	Floor time.Duration

	// Addresses is how many are remembered. Beyond them the one goes that was
	// in no answer for the longest time. 0 is 65,536.
	Addresses int

	// Changed, if it is set, hears of every address whose names have become
	// others, and of those that it has now: none if it is forgotten. Calls
	// follow each other in the order of the changes; none may call the Memory.
	Changed func(addr netip.Addr, names []string)

	mu    sync.Mutex
	names *simplelru.LRU[netip.Addr, *known] // nil until something is learnt
}

// Name is a name that an address was given for.
type Name struct {
	Name   string // that a program asked for, as in [Inspection]
	Learnt time.Time
}

type remembered struct {
	Name
	until time.Time
}

// known are the names of an address, the newest first.
type known []remembered

// live are those that have not come to their end.
func (k known) live() known {
	now := time.Now()
	return slices.DeleteFunc(slices.Clone(k), func(n remembered) bool { return !now.Before(n.until) })
}

func (k known) texts() []string {
	var texts []string
	for _, n := range k {
		texts = append(texts, n.Name.Name)
	}
	return texts
}

// Learn is Add of what [Resolve] reads in a message, and returns how many
// addresses it has learnt.
func (m *Memory) Learn(response []byte) int {
	found, ok := Resolve(response)
	if !ok {
		return 0
	}
	m.Add(found)
	return len(found.Addresses)
}

// Add remembers the name for each of the addresses.
func (m *Memory) Add(found Resolved) {
	name := Name{found.Name, time.Now()}
	m.mu.Lock()
	defer m.mu.Unlock()
	for addr, ttl := range found.Addresses {
		m.learn(addr, remembered{name, name.Learnt.Add(m.life(ttl))})
	}
}

// Names returns the names that were learnt for an address, the newest first.
func (m *Memory) Names(addr netip.Addr) []Name {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []Name
	for _, n := range m.of(addr.WithZone("").Unmap()).live() {
		names = append(names, n.Name)
	}
	return names
}

// Sweep forgets what has come to its end. Names does without, but Changed
// hears of an end only here.
func (m *Memory) Sweep() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, addr := range m.addresses() {
		entry, _ := m.names.Peek(addr)
		live := entry.live()
		switch {
		case len(live) == len(*entry):
		case len(live) == 0:
			m.names.Remove(addr)
		default:
			*entry = live
			m.changed(addr, live)
		}
	}
}

// All returns what is remembered, a name and an address at a time, the oldest
// first: what another Memory has to be told to know the same.
func (m *Memory) All() []Resolved {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Resolved
	for _, addr := range m.addresses() {
		for _, n := range slices.Backward(m.of(addr).live()) {
			all = append(all, Resolved{n.Name.Name, map[netip.Addr]time.Duration{addr: time.Until(n.until)}})
		}
	}
	return all
}

// addresses are all of them. The one goes first that was in no answer for the
// longest time.
func (m *Memory) addresses() []netip.Addr {
	if m.names == nil {
		return nil
	}
	return m.names.Keys()
}

func (m *Memory) of(addr netip.Addr) known {
	if m.names == nil {
		return nil
	}
	if entry, ok := m.names.Peek(addr); ok { // not Get: to be looked up keeps nothing alive
		return *entry
	}
	return nil
}

func (m *Memory) learn(addr netip.Addr, n remembered) {
	if m.names == nil {
		m.names = m.newNames()
	}
	old := m.of(addr)
	names := slices.DeleteFunc(slices.Clone(old), func(o remembered) bool { return o.Name.Name == n.Name.Name })
	names = slices.Insert(names, 0, n)
	names = names[:min(len(names), namesPerAddress)]
	m.names.Add(addr, &names)
	if !slices.Equal(old.texts(), names.texts()) {
		m.changed(addr, names)
	}
}

func (m *Memory) changed(addr netip.Addr, names known) {
	if m.Changed != nil {
		m.Changed(addr, names.texts())
	}
}

func (m *Memory) newNames() *simplelru.LRU[netip.Addr, *known] {
	size := m.Addresses
	if size <= 0 {
		size = defaultAddresses
	}
	names, err := simplelru.NewLRU(size, func(addr netip.Addr, _ *known) { m.changed(addr, nil) })
	if err != nil {
		panic(err) // it refuses only sizes that are not positive
	}
	return names
}

func (m *Memory) life(ttl time.Duration) time.Duration {
	floor := m.Floor
	if floor <= 0 {
		floor = defaultFloor
	}
	return min(max(ttl, floor), longest)
}
