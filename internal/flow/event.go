// Package flow has the words for what happens to a connection: the events
// that the kernel side reports, and the flows that they make up.
package flow

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

// ID names one application connection and every connection that proxies
// opened for it. It is written as 16 hexadecimal digits.
type ID uint64

func (id ID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// MarshalText makes a string of it: as a JSON number it would lose bits.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (id *ID) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 16, 64)
	if err != nil {
		return fmt.Errorf("flow id %q is not a hexadecimal number of up to 16 digits", text)
	}
	*id = ID(n)
	return nil
}

// Kind of an [Event].
type Kind string

// The first six are outcomes of a connect(); each connection has one.
const (
	Redirected  Kind = "redirected"   // sent to Provider's proxy
	Passed      Kind = "passed"       // went to Dst itself: the last leg of a flow, or all who wanted it were skipped
	Forbidden   Kind = "forbidden"    // Filter of Provider blocks it: EACCES
	Refused     Kind = "refused"      // Provider is down, and blocks then: EACCES
	QUICDropped Kind = "quic-dropped" // of UDP: Filter of Provider has TCP redirected, and QUIC would be a way around: EACCES
	Looped      Kind = "looped"       // it has the most hops that a flow may have: ELOOP
	Accepted    Kind = "accepted"     // the handshake with Provider's proxy is complete
	Closed      Kind = "closed"       // the connection has ended
	Linked      Kind = "linked"       // the flow begins with a proxy's connection, which goes on with one of Links
)

// Event is one thing that happened to one connection of a flow.
type Event struct {
	Kind Kind      `json:"kind"`
	Time time.Time `json:"time"`
	Flow ID        `json:"flow"`

	// Hop numbers the connections of a flow: 0 is the application's own, 1
	// the one that the first proxy opened, and so on.
	Hop int `json:"hop"`

	// Of outcomes, Accepted and Closed.
	Provider string `json:"provider,omitempty"` // whose proxy it went to, or who refused it

	// Of outcomes.
	Process  Process        `json:"process,omitzero"` // who connects
	Protocol Protocol       `json:"protocol,omitempty"`
	Dst      netip.AddrPort `json:"dst,omitzero"`   // what it asked for
	Name     string         `json:"name,omitempty"` // that led to the address of Dst, as far as somebody has told
	Filter   string         `json:"filter,omitempty"`
	State    string         `json:"state,omitempty"` // for Provider, before the redirect
	Skipped  []Skip         `json:"skipped,omitempty"`
	Kinship  Kinship        `json:"kinship,omitempty"`

	// Of Closed.
	Duration time.Duration `json:"duration_ns,omitempty"` // since connect()
	Sent     uint64        `json:"sent,omitempty"`        // bytes that the peer acknowledged; of UDP, datagrams
	Received uint64        `json:"received,omitempty"`    // bytes; of UDP, datagrams
	Error    string        `json:"error,omitempty"`       // such as "connection refused"; empty: an orderly end

	// Of Linked.
	Links      []ID `json:"links,omitempty"`      // at most 8
	Candidates int  `json:"candidates,omitempty"` // how many there were
}

// Protocol of a connection; empty is TCP.
type Protocol string

const UDP Protocol = "udp"

// Kinship says how a proxy's connection that carried no records came into its
// flow. It is empty for the application's own and for those with records.
type Kinship string

// A proxy that knows nothing of waybill sets no records.
const (
	Implied   Kinship = "implied"   // it goes on with none that the proxy accepted: it begins a flow
	Inherited Kinship = "inherited" // it dialled the original destination of the one that the proxy had accepted
	Ambiguous Kinship = "ambiguous" // of several: it begins a flow, and its history is that of one of them
)

// Skip says why a provider that wanted a connection did not get it.
type Skip struct {
	Provider string     `json:"provider"`
	Reason   SkipReason `json:"reason"`
}

// SkipReason of a [Skip].
type SkipReason string

// A provider without a matching filter is not listed at all.
const (
	SkipState  SkipReason = "state"  // it had redirected the flow already, or its filter wants another state
	SkipDown   SkipReason = "down"   // its proxy was not reachable
	SkipShadow SkipReason = "shadow" // it is in shadow mode
)

// Process is one process, as the kernel saw it at a connect().
type Process struct {
	PID      uint32        `json:"pid"` // in the initial pid namespace
	UID      uint32        `json:"uid"`
	GID      uint32        `json:"gid"`
	CgroupID uint64        `json:"cgroup_id,string"`
	NetNS    uint64        `json:"netns_cookie,string"`
	Start    time.Duration `json:"start_ns"` // since boot; with PID it names one process for good
	Comm     string        `json:"comm"`
	Device   uint64        `json:"device"` // of the executable, as the kernel's dev_t: major << 20 | minor
	Inode    uint64        `json:"inode"`
	Args     []string      `json:"args,omitempty"` // of hop 0 only, cut after 256 bytes
}
