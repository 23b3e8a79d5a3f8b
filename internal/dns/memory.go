package dns

import (
	"errors"
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
	// others, and of those that it has now, the newest first: none if it is
	// forgotten. That they come in another order is no change. Calls follow each
	// other in the order of the changes; none may call the Memory. What fails is
	// the error of the method that has learnt or forgotten, and told again when
	// the address is learnt again.
	Changed func(addr netip.Addr, names []string) error

	mu     sync.Mutex
	names  *simplelru.LRU[netip.Addr, *entry] // nil until something is learnt
	failed error                              // of Changed, in the method that runs
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

// entry is what there is to an address.
type entry struct {
	known known
	told  []string // the names of which Changed knows, sorted
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

// Add remembers the name for each of the addresses.
func (m *Memory) Add(found Resolved) error {
	name := Name{found.Name, time.Now()}
	m.mu.Lock()
	defer m.mu.Unlock()
	for addr, ttl := range found.Addresses {
		m.learn(addr, remembered{name, name.Learnt.Add(m.life(ttl))})
	}
	return m.failure()
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
func (m *Memory) Sweep() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, addr := range m.addresses() {
		e, _ := m.names.Peek(addr)
		live := e.known.live()
		switch {
		case len(live) == len(e.known):
		case len(live) == 0:
			m.names.Remove(addr)
		default:
			e.known = live
			m.tell(addr, e)
		}
	}
	return m.failure()
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
	if e, ok := m.names.Peek(addr); ok { // not Get: to be looked up keeps nothing alive
		return e.known
	}
	return nil
}

func (m *Memory) learn(addr netip.Addr, n remembered) {
	if m.names == nil {
		m.names = m.newNames()
	}
	e, ok := m.names.Peek(addr)
	if !ok {
		e = new(entry)
	}
	names := slices.DeleteFunc(slices.Clone(e.known), func(o remembered) bool { return o.Name.Name == n.Name.Name })
	names = slices.Insert(names, 0, n)
	e.known = names[:min(len(names), namesPerAddress)]
	m.names.Add(addr, e)
	m.tell(addr, e)
}

// tell lets Changed know of the names that it does not know of, or that are
// none any more.
func (m *Memory) tell(addr netip.Addr, e *entry) {
	names := e.known.texts()
	sorted := slices.Sorted(slices.Values(names))
	if !slices.Equal(sorted, e.told) && m.changed(addr, names) {
		e.told = sorted
	}
}

func (m *Memory) changed(addr netip.Addr, names []string) bool {
	if m.Changed == nil {
		return true
	}
	err := m.Changed(addr, names)
	m.failed = errors.Join(m.failed, err)
	return err == nil
}

func (m *Memory) failure() error {
	err := m.failed
	m.failed = nil
	return err
}

func (m *Memory) newNames() *simplelru.LRU[netip.Addr, *entry] {
	size := m.Addresses
	if size <= 0 {
		size = defaultAddresses
	}
	names, err := simplelru.NewLRU(size, func(addr netip.Addr, _ *entry) { m.changed(addr, nil) })
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
