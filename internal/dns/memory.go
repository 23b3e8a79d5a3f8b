package dns

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	miekg "github.com/miekg/dns"
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
// It is for people who want to read a name where there is an address, not for
// decisions:
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

	mu    sync.Mutex
	names *simplelru.LRU[netip.Addr, []remembered] // nil until something is learnt
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

// Learn takes a message from a resolver to a program, without the length that
// goes before it over TCP, and returns how many addresses it has learnt. Of
// each it keeps the name that was asked for. Records that do not lead from
// this name to the address by its aliases are ignored, and so are messages
// that are no answer to one question. That the answer belongs to a query, by
// its id and the addresses of the datagram, is for the caller to see.
func (m *Memory) Learn(response []byte) int {
	var answer miekg.Msg
	// After an error answer has all sections before the faulty one.
	_ = answer.Unpack(response)
	if !answers(&answer) {
		return 0
	}
	found := addresses(&answer)
	if len(found) == 0 {
		return 0
	}
	name := Name{canonical(answer.Question[0].Name), time.Now()}
	m.mu.Lock()
	defer m.mu.Unlock()
	for addr, ttl := range found {
		m.learn(addr, remembered{name, name.Learnt.Add(m.life(ttl))})
	}
	return len(found)
}

// Names returns the names that were learnt for an address, the newest first.
func (m *Memory) Names(addr netip.Addr) []Name {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names == nil {
		return nil
	}
	var names []Name
	now := time.Now()
	known, _ := m.names.Peek(addr.WithZone("").Unmap()) // not Get: to be looked up keeps nothing alive
	for _, n := range known {
		if now.Before(n.until) {
			names = append(names, n.Name)
		}
	}
	return names
}

func (m *Memory) learn(addr netip.Addr, n remembered) {
	if m.names == nil {
		m.names = newNames(m.Addresses)
	}
	known, _ := m.names.Peek(addr)
	known = slices.DeleteFunc(known, func(old remembered) bool { return old.Name.Name == n.Name.Name })
	known = slices.Insert(known, 0, n)
	m.names.Add(addr, known[:min(len(known), namesPerAddress)])
}

func newNames(size int) *simplelru.LRU[netip.Addr, []remembered] {
	if size <= 0 {
		size = defaultAddresses
	}
	names, err := simplelru.NewLRU[netip.Addr, []remembered](size, nil)
	if err != nil {
		panic(err) // it refuses only sizes that are not positive
	}
	return names
}

func (m *Memory) life(ttl uint32) time.Duration {
	floor := m.Floor
	if floor <= 0 {
		floor = defaultFloor
	}
	return min(max(time.Duration(ttl)*time.Second, floor), longest)
}
