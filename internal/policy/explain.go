package policy

import (
	"net/netip"
	"slices"
)

// Trial is a connection that somebody asks about.
type Trial struct {
	Protocol Protocol
	Dst      netip.AddrPort
	Names    []string // that led to the address of Dst
	Client   Subject
	Proxies  map[string]Subject // by provider: what is known of its proxy's process, beside its cgroup
	Down     []string           // providers whose proxies do not listen; the others do
	Unaware  []string           // providers whose proxies set no records, and do not dial for a connection that they accepted (a pool does so)
}

// Subject is a process that connects. What is not known of it is empty, and
// taken for what no filter names.
type Subject struct {
	Program string `json:"program,omitempty"` // path of its executable
	User    string `json:"user,omitempty"`    // name or number
	Cgroup  string `json:"cgroup,omitempty"`  // directory
	File    FileID `json:"-"`                 // of Program
	UID     uint32 `json:"-"`                 // of User
}

// Explanation is the way of a connection through the chain: one step for
// every connect(), the program's own and those of the proxies.
type Explanation struct {
	Protocol string         `json:"protocol"`
	Dst      netip.AddrPort `json:"dst"`
	Names    []string       `json:"names,omitempty"` // that led there
	Steps    []Step         `json:"steps"`
	Proxies  []string       `json:"proxies"` // providers whose proxies see it, in order
	Outcome  string         `json:"outcome"` // of the last step, as events have it: "passed", "forbidden", "quic-dropped", "refused", "looped"
	Unknown  []Unknown      `json:"unknown,omitempty"`
}

// Step is one connect() and what becomes of it.
type Step struct {
	ProxyOf   string         `json:"proxy_of,omitempty"` // the provider in whose process set the process is
	Process   Subject        `json:"process"`
	Hop       int            `json:"hop"`
	Inquiries []Inquiry      `json:"inquiries"`
	Outcome   string         `json:"outcome"` // as events have it
	Provider  string         `json:"provider,omitempty"`
	Filter    string         `json:"filter,omitempty"`
	State     string         `json:"state,omitempty"`    // for Provider
	Proxy     netip.AddrPort `json:"proxy,omitzero"`     // where it goes instead
	DialsTo   string         `json:"dials_to,omitempty"` // the provider whose proxy's own address Dst is: nobody is asked
}

// Inquiry asks the providers, the heaviest first, until one has the last word.
type Inquiry struct {
	Layer     Layer    `json:"layer"`
	AsTCP     bool     `json:"as_tcp,omitempty"`     // about UDP as if it were TCP, for filters that drop QUIC
	ForOrigin bool     `json:"for_origin,omitempty"` // about the program at the start of the chain as if it were the one that connects
	Answers   []Answer `json:"answers"`
	NotAsked  []string `json:"not_asked,omitempty"` // providers behind the one that had the last word
}

// Blocked reports whether a filter blocks the connection.
func (i Inquiry) Blocked() bool {
	return slices.ContainsFunc(i.Answers, func(a Answer) bool { return a.Effect == Blocks })
}

// Answer is what one provider says.
type Answer struct {
	Provider string `json:"provider"`
	State    string `json:"state"`
	Effect   Effect `json:"effect"`
	Filter   string `json:"filter,omitempty"`   // that matches
	Excluded string `json:"excluded,omitempty"` // the heaviest filter that matches but for the state
	Reason   string `json:"reason"`             // in words
}

// Effect of an [Answer]. Those with a word that events have for a skipped
// provider are such skips.
type Effect string

const (
	Redirects Effect = "redirects"
	Refuses   Effect = "refuses" // its proxy is down, and it blocks then
	Loops     Effect = "loops"   // it would redirect, but there are MaxHops hops
	Blocks    Effect = "blocks"
	Permits   Effect = "permits"
	Bypassed  Effect = "down"
	Shadowed  Effect = "shadow"
	Excluded  Effect = "state"    // a filter matches but for the state
	Unmatched Effect = "no-match" // no filter matches
)

// verdict of the effects that are the last word.
func (e Effect) verdict() (v Verdict, last bool) {
	switch e {
	case Redirects:
		return Redirect, true
	case Refuses:
		return Refuse, true
	case Loops:
		return Loop, true
	case Blocks:
		return Forbid, true
	}
	return Pass, false
}

// Unknown is something that some filter asks and nobody knows.
type Unknown struct {
	ProxyOf string `json:"proxy_of,omitempty"` // the provider whose proxy it is about; empty: the program
	What    string `json:"what"`               // "program", "user" or "cgroup"
}

// Explain follows a connection through the chain with the decisions of the
// kernel's twin.
func (t *Table) Explain(trial Trial) (Explanation, error) {
	j, err := t.begin(trial)
	if err != nil {
		return Explanation{}, err
	}
	for !j.ended {
		j.connect()
	}
	return j.Explanation, nil
}
