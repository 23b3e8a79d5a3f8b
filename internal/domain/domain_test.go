package domain_test

import (
	"slices"
	"testing"

	"github.com/waybill-net/waybill/internal/domain"
)

func TestParse(t *testing.T) {
	for pattern, want := range map[string]string{
		"Ads.Example.":     "ads.example",
		"*.Bücher.example": "*.xn--bcher-kva.example",
		"ads..example":     "",
		"*.":               "",
	} {
		got, err := domain.Parse(pattern)
		if got != want && err == nil || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v; want %q", pattern, got, err, want)
		}
	}
}

func TestParseName(t *testing.T) {
	for name, want := range map[string]string{"A.Example.": "a.example", "*.a.example": "", "a b.example": "", ".": ""} {
		got, err := domain.ParseName(name)
		if got != want && err == nil || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v; want %q", name, got, err, want)
		}
	}
}

// TestPatterns: they are what a set with one of them matches by.
func TestPatterns(t *testing.T) {
	for name, want := range map[string][]string{
		"A.b.example.": {"a.b.example", "*.b.example", "*.example"},
		"example":      {"example"},
		`a\.b.example`: {`a\.b.example`, "*.example"},
		".":            {"."},
	} {
		got := slices.Collect(domain.Patterns(name))
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	for pattern := range domain.Patterns("a.b.c.example") {
		if found, ok := set(t, pattern).Match("A.B.C.Example."); !ok || found != pattern {
			t.Errorf("the set of %s matches by %q", pattern, found)
		}
	}
}
