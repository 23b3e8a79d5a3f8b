// Package domain matches names of hosts with patterns, each in one of two
// forms:
//
//	example.com      the name itself, and nothing below it
//	*.example.com    everything below it, at any depth, and not the name itself
//
// Upper and lower case are the same. A name in another script is stored as DNS
// carries it: bücher.example as xn--bcher-kva.example.
package domain

import (
	"errors"
	"iter"
	"strings"
)

// everythingBelow stands before the name of a pattern of the second form.
const everythingBelow = "*."

// Parse checks a pattern and returns it in the form in which it is compared.
func Parse(pattern string) (string, error) {
	name, s, err := parse(pattern)
	if s == below {
		name = everythingBelow + name
	}
	return name, err
}

// ParseName does the same for the name of a host, which is a pattern of the
// first form.
func ParseName(name string) (string, error) {
	parsed, s, err := parse(name)
	if err == nil && s == below {
		err = errors.New("a pattern, not a name")
	}
	return parsed, err
}

// Canonical is the form in which names are compared and shown: in lower case
// and without the final dot, but for "." itself.
func Canonical(name string) string {
	if name == "." {
		return name
	}
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

// Patterns are those that match a name, the closest first. Dots and backslashes
// that are part of a label are escaped as in zone files.
func Patterns(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		name := Canonical(name)
		if !yield(name) {
			return
		}
		for suffix := range parents(name) {
			if !yield(everythingBelow + suffix) {
				return
			}
		}
	}
}

// parents are the names that a name is below, the longest first.
func parents(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := 0; i < len(name); i++ {
			switch {
			case name[i] == '\\':
				i++ // of \046 the digits are no dots either
			case name[i] == '.' && i+1 < len(name):
				if !yield(name[i+1:]) {
					return
				}
			}
		}
	}
}
