package flow

import (
	"net/netip"
	"path"
	"time"
)

// Outcome of a [Flow] as its application sees it.
type Outcome string

// The first four are those of a connect(), and have the same words.
const (
	WasForbidden   Outcome = "forbidden"
	WasRefused     Outcome = "refused"
	WasQUICDropped Outcome = "quic-dropped"
	WasLooped      Outcome = "looped"
	Failed         Outcome = "failed" // one of its connections ended with an error
	Done           Outcome = "done"   // the application's connection ended in order
	Open           Outcome = "open"   // nothing has been heard of its end
)

// Flow is one application connection and every connection that proxies opened
// for it. [Flow.Apply] makes one out of events; all but ID, Details and Hops
// follows from the hops.
type Flow struct {
	ID       ID             `json:"id"`
	Start    time.Time      `json:"start"`
	End      time.Time      `json:"end,omitzero"`
	Outcome  Outcome        `json:"outcome"`
	Process  Process        `json:"process,omitzero"` // the application; zero if its connect() was not seen
	Details  Details        `json:"details,omitzero"` // of Process
	Protocol Protocol       `json:"protocol,omitempty"`
	Dst      netip.AddrPort `json:"dst,omitzero"`    // what the application asked for
	Name     string         `json:"name,omitempty"`  // as in [Event], of Dst
	Hops     []Hop          `json:"hops"`            // by N; those of which nothing was seen are missing
	Links    []ID           `json:"links,omitempty"` // flows of which this one goes on with one, nobody can tell which
}

// Details are what can be found out about a [Process] outside the kernel. Each
// is empty if it could not be.
type Details struct {
	Executable string   `json:"executable,omitempty"`
	Unverified bool     `json:"unverified,omitempty"` // Executable is only what the process calls itself
	Args       []string `json:"args,omitempty"`
	User       string   `json:"user,omitempty"`
	Cgroup     string   `json:"cgroup,omitempty"`    // from the root of the cgroup v2 hierarchy
	Unit       string   `json:"unit,omitempty"`      // of systemd
	Container  string   `json:"container,omitempty"` // its id
}

// Hop is one connection of a flow. If a proxy tried more than once, it is the
// newest try.
type Hop struct {
	N        int            `json:"n"` // 0 is the application's own
	Kind     Kind           `json:"kind"`
	Provider string         `json:"provider,omitempty"` // whose proxy it went to, or who refused it
	Filter   string         `json:"filter,omitempty"`
	State    string         `json:"state,omitempty"` // for Provider, before the redirect
	Protocol Protocol       `json:"protocol,omitempty"`
	Dst      netip.AddrPort `json:"dst,omitzero"`
	Name     string         `json:"name,omitempty"`   // as in [Event]
	Process  Process        `json:"process,omitzero"` // who connects
	Skipped  []Skip         `json:"skipped,omitempty"`
	Kinship  Kinship        `json:"kinship,omitempty"`

	Connected time.Time     `json:"connected,omitzero"` // connect() was called
	Accepted  time.Time     `json:"accepted,omitzero"`
	Closed    time.Time     `json:"closed,omitzero"`
	Duration  time.Duration `json:"duration_ns,omitempty"` // of a closed connection, as the kernel measured it
	Sent      uint64        `json:"sent,omitempty"`        // bytes; of UDP, datagrams
	Received  uint64        `json:"received,omitempty"`    // likewise
	Error     string        `json:"error,omitempty"`
}

// Handshake is the time from connect() to the proxy's end of the connection, 0
// if that is not known.
func (h *Hop) Handshake() time.Duration { return between(h.Connected, h.Accepted) }

// Denied reports whether connect() itself failed.
func (h *Hop) Denied() bool {
	return h.Kind == Forbidden || h.Kind == QUICDropped || h.Kind == Refused || h.Kind == Looped
}

// Hop returns the hop with the number n, or nil if nothing was seen of it.
func (f *Flow) Hop(n int) *Hop {
	for i := range f.Hops {
		if f.Hops[i].N == n {
			return &f.Hops[i]
		}
	}
	return nil
}

// Added is the time that the proxy which opened hop n took for it: from the end
// of the handshake of hop n-1 to its connect(). It is 0 if that is not known.
func (f *Flow) Added(n int) time.Duration {
	before, after := f.Hop(n-1), f.Hop(n)
	if before == nil || after == nil {
		return 0
	}
	return between(before.Accepted, after.Connected)
}

// Duration is the time from Start to End, 0 while there is no end.
func (f *Flow) Duration() time.Duration { return between(f.Start, f.End) }

// Bytes returns what the application sent and received, in bytes or, of UDP, in
// datagrams. It is known when the
// application's connection is closed; until then, what is known nearest to it.
func (f *Flow) Bytes() (sent, received uint64, known bool) {
	for i := range f.Hops {
		if h := &f.Hops[i]; !h.Closed.IsZero() {
			return h.Sent, h.Received, true
		}
	}
	return 0, 0, false
}

// Program is the short name of the application, empty if nothing is known.
func (f *Flow) Program() string {
	switch {
	case f.Details.Executable != "" && !f.Details.Unverified:
		return path.Base(f.Details.Executable)
	case f.Process.Comm != "":
		return f.Process.Comm
	case f.Details.Executable != "":
		return path.Base(f.Details.Executable)
	}
	return ""
}

func between(from, to time.Time) time.Duration {
	if from.IsZero() || to.IsZero() {
		return 0
	}
	return max(to.Sub(from), 0)
}
