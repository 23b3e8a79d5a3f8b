package policyfile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
)

// nearest returns the word that s is probably a slip for.
func nearest(s string, words []string) (string, bool) {
	best, bestDistance := "", 1+max(1, min(len(s)/3, 3))
	for _, w := range words {
		d := levenshtein.ComputeDistance(strings.ToLower(s), w)
		if slices.Equal(letters(s), letters(w)) {
			d = 1 // two of them changed places, which this distance takes for two slips
		}
		if d < bestDistance {
			best, bestDistance = w, d
		}
	}
	return best, best != ""
}

func letters(s string) []rune { return sorted([]rune(s)) }

func wordHint(s string, words []string) string {
	if w, ok := nearest(s, words); ok {
		return fmt.Sprintf("did you mean %q?", w)
	}
	if len(words) == 0 {
		return "there is none"
	}
	return "write one of: " + strings.Join(words, ", ")
}

// fieldHint also knows where a field belongs that stands one level too high or
// too low.
func fieldHint(name string, known []string) string {
	for _, home := range []struct {
		name   string
		fields []string
	}{
		{"a provider", providerFields},
		{"proxy of a provider", proxyFields},
		{"processes of a provider", processesFields},
		{"a filter", filterFields},
		{"match of a filter", matchFields},
	} {
		if slices.Contains(home.fields, name) {
			if _, slip := nearest(name, known); !slip {
				return fmt.Sprintf("%s is a field of %s", name, home.name)
			}
		}
	}
	return wordHint(name, known)
}
