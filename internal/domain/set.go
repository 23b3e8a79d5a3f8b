package domain

// Set is a set of patterns. The zero value is empty. Once filled, it may be
// used concurrently.
type Set struct {
	names map[string]scope
}

// scope says which patterns there are of a name.
type scope uint8

const (
	itself scope = 1 << iota
	below
)

// Len is the number of names that patterns are about.
func (s *Set) Len() int { return len(s.names) }

// Match looks for a pattern that matches a name, which may be in any case and
// have its final dot or not. It takes one look-up for each label, however many
// patterns there are.
func (s *Set) Match(name string) (pattern string, ok bool) {
	name = Canonical(name)
	if s.names[name]&itself != 0 {
		return name, true
	}
	for suffix := range parents(name) {
		if s.names[suffix]&below != 0 {
			return everythingBelow + suffix, true
		}
	}
	return "", false
}
