// Package dns looks at DNS messages on behalf of a proxy that stands between
// programs and their resolver: which names are asked for ([Rules]), and which
// addresses they were told ([Memory]). It is pure: messages come in as bytes
// and go out as bytes.
package dns

import (
	"strings"

	miekg "github.com/miekg/dns"
)

// Rules are names to block, each in one of two forms:
//
//	example.com      the name itself, and nothing below it
//	*.example.com    everything below it, at any depth, and not the name itself
//
// Upper and lower case are the same. A name in another script is stored as DNS
// carries it: bücher.example as xn--bcher-kva.example.
//
// Only the name that a program asks for counts. One whose CNAME leads to a
// blocked name is answered by the resolver, which has followed it already.
//
// The zero value blocks nothing. Once filled, Rules may be used concurrently.
type Rules struct {
	// Answer is what a program is told that asks for a blocked name.
	Answer Answer

	names map[string]scope
}

// scope says what rules there are for a name.
type scope uint8

const (
	itself scope = 1 << iota
	below
)

// Len is the number of names that rules are about.
func (r *Rules) Len() int { return len(r.names) }

// Match looks for the rule that blocks a name, which is written as in
// [Inspection], but in any case and with or without the final dot. It takes one
// look-up for each label, however many rules there are.
func (r *Rules) Match(name string) (rule string, ok bool) {
	name = canonical(name)
	if r.names[name]&itself != 0 {
		return name, true
	}
	for at, last := miekg.NextLabel(name, 0); !last; at, last = miekg.NextLabel(name, at) {
		if r.names[name[at:]]&below != 0 {
			return "*." + name[at:], true
		}
	}
	return "", false
}

// canonical is the form in which names are compared and shown.
func canonical(name string) string {
	if name == "." {
		return name
	}
	return strings.ToLower(strings.TrimSuffix(name, "."))
}
