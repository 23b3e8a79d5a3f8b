package domain

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Limits of RFC 1035, for names as they are written.
const (
	maxName  = 253
	maxLabel = 63
)

// Add adds patterns. Those before one that is wrong stay added.
func (s *Set) Add(patterns ...string) error {
	if s.names == nil {
		s.names = make(map[string]scope, len(patterns))
	}
	for _, pattern := range patterns {
		name, of, err := parse(pattern)
		if err != nil {
			return fmt.Errorf("name %q: %w", pattern, err)
		}
		s.names[name] |= of
	}
	return nil
}

// Load adds the patterns of a list, one a line. A # begins a comment. Lines of a
// hosts file that lead nowhere (0.0.0.0 ads.example) add their names, except
// for those that every hosts file has for the machine itself; lines with other
// addresses add nothing. Patterns before a line that is wrong stay added.
func (s *Set) Load(list io.Reader) error {
	lines := bufio.NewScanner(list)
	n := 0
	for lines.Scan() {
		n++
		patterns, err := split(lines.Text())
		if err == nil {
			err = s.Add(patterns...)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read line %d: %w", n+1, err)
	}
	return nil
}

// split finds the patterns in a line.
func split(line string) ([]string, error) {
	line, _, _ = strings.Cut(strings.TrimPrefix(line, "\ufeff"), "#") // Windows' editors begin a file with that mark
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return fields, nil
	}
	addr, err := netip.ParseAddr(fields[0])
	switch {
	case err != nil:
		return nil, fmt.Errorf("name %q: more than one word, and the first is no address", strings.TrimSpace(line))
	case !addr.IsUnspecified() && !addr.IsLoopback():
		return nil, nil
	}
	var patterns []string
	for _, name := range fields[1:] {
		if !isOwn(name) {
			patterns = append(patterns, name)
		}
	}
	return patterns, nil
}

// isOwn: hosts files name the machine, and lists in their form often begin
// with a copy of such lines, or with "0.0.0.0 0.0.0.0".
func isOwn(name string) bool {
	return !strings.Contains(name, ".") || name == "localhost.localdomain" || isAddress(name)
}

func parse(pattern string) (string, scope, error) {
	name, s := pattern, itself
	if suffix, ok := strings.CutPrefix(pattern, everythingBelow); ok {
		name, s = suffix, below
	}
	name, err := toASCII(name)
	if err != nil {
		return "", 0, err
	}
	name = Canonical(name)
	return name, s, check(name)
}

// profile takes what browsers take, and underscores, which are in many names
// that are no host's.
var profile = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(false))

func toASCII(name string) (string, error) {
	if strings.IndexFunc(name, func(c rune) bool { return c > '~' }) < 0 {
		return name, nil // also when it is no name: check says it better
	}
	if !utf8.ValidString(name) {
		return "", errors.New("not UTF-8")
	}
	return profile.ToASCII(name)
}

func check(name string) error {
	switch {
	case name == "" || name == ".":
		return errors.New("no name")
	case strings.HasPrefix(name, "."):
		return fmt.Errorf("begins with a dot; *%s is everything below it", name)
	case len(name) > maxName:
		return fmt.Errorf("%d bytes; a name has at most %d", len(name), maxName)
	case isAddress(name):
		return errors.New("an address, not a name")
	}
	for label := range strings.SplitSeq(name, ".") {
		if err := checkLabel(label); err != nil {
			return err
		}
	}
	return nil
}

func checkLabel(label string) error {
	switch i := strings.IndexFunc(label, isForeign); {
	case label == "":
		return errors.New("two dots with nothing between them")
	case len(label) > maxLabel:
		return fmt.Errorf("label of %d bytes; one has at most %d", len(label), maxLabel)
	case i >= 0 && label[i] == '*':
		return errors.New("a * only stands before a name, as in *.example.com")
	case i >= 0:
		return fmt.Errorf("character %q", label[i])
	}
	return nil
}

// isForeign: DNS carries any byte, but lists that have others than these hold
// something else than names: addresses of pages, or another syntax.
func isForeign(c rune) bool {
	return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_'
}

func isAddress(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil
}
