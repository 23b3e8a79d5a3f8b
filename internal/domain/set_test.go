package domain_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/waybill-net/waybill/internal/domain"
)

func set(t testing.TB, patterns ...string) *domain.Set {
	t.Helper()
	var r domain.Set
	if err := r.Add(patterns...); err != nil {
		t.Fatal(err)
	}
	return &r
}

func TestMatch(t *testing.T) {
	r := set(t, "ads.example", "*.tracker.example", "Both.Example.", "*.both.example", "*.zone",
		"bücher.example", "*.BÜCHER.example", "xn--fa-hia.example", "_dmarc.example", "straße.example")
	for name, want := range map[string]string{
		"ads.example":                  "ads.example",
		"ads.example.":                 "ads.example",
		"ADS.eXaMpLe.":                 "ads.example",
		"www.ads.example.":             "",
		"xads.example.":                "",
		"example.":                     "",
		"tracker.example.":             "",
		"a.tracker.example.":           "*.tracker.example",
		"a.b.C.tracker.example.":       "*.tracker.example",
		"atracker.example.":            "",
		"tracker.example.org.":         "",
		"both.example.":                "both.example",
		"www.both.example.":            "*.both.example",
		"zone.":                        "",
		"a.b.zone.":                    "*.zone",
		"xn--bcher-kva.example.":       "xn--bcher-kva.example",
		"a.xn--bcher-kva.example.":     "*.xn--bcher-kva.example",
		"xn--fa-hia.example.":          "xn--fa-hia.example",
		"xn--strae-oqa.example.":       "xn--strae-oqa.example",
		"_dmarc.example.":              "_dmarc.example",
		`a\.tracker.example.`:          "", // one label with a dot in it, beside tracker
		`a.b\.tracker.example.`:        "",
		`\\.tracker.example.`:          "*.tracker.example", // a label of one backslash
		`ads\.example.`:                "",
		".":                            "",
		"":                             "",
		strings.Repeat("a.", 127):      "",
		strings.Repeat(`\.`, 60) + ".": "",
	} {
		if rule, ok := r.Match(name); rule != want || ok != (want != "") {
			t.Errorf("%s: got %q, %v; want %q", name, rule, ok, want)
		}
	}
	var none domain.Set
	if rule, ok := none.Match("ads.example."); ok {
		t.Errorf("no rules name by %q", rule)
	}
}

func TestLoad(t *testing.T) {
	list := "\ufeff# a list\r\n" + `
ads.example   # the name itself
*.ads.example
	Bücher.example

0.0.0.0 hosts.example www.hosts.example # of a hosts file
127.0.0.1	loopback.example
:: six.example
::1 localhost ip6-localhost six-loopback.example
127.0.0.1 localhost localhost.localdomain local
0.0.0.0 0.0.0.0
127.0.1.1 mymachine
255.255.255.255 broadcasthost
fe80::1%lo0 localhost
ff02::1 ip6-allnodes
192.0.2.1 server.example`
	var r domain.Set
	if err := r.Load(strings.NewReader(list)); err != nil {
		t.Fatal(err)
	}
	blocked := []string{
		"ads.example", "www.ads.example", "xn--bcher-kva.example", "hosts.example", "www.hosts.example", "loopback.example",
		"six.example", "six-loopback.example",
	}
	for _, name := range blocked {
		if _, ok := r.Match(name); !ok {
			t.Errorf("%s is not blocked", name)
		}
	}
	for _, name := range []string{"localhost", "local", "localhost.localdomain", "mymachine", "broadcasthost", "server.example", "0.0.0.0"} {
		if rule, ok := r.Match(name); ok {
			t.Errorf("%s is blocked by %s", name, rule)
		}
	}
	if want := len(blocked) - 1; r.Len() != want { // ads.example has two rules
		t.Errorf("rules about %d names, want %d", r.Len(), want)
	}
}

func TestLoadErrors(t *testing.T) {
	long := strings.Repeat("a", 64)
	for line, want := range map[string]string{
		".ads.example":              `name ".ads.example": begins with a dot; *.ads.example is everything below it`,
		"*.":                        `name "*.": no name`,
		".":                         `name ".": no name`,
		"*":                         `name "*": a * only stands before a name, as in *.example.com`,
		"ads*.example":              `name "ads*.example": a * only stands before a name, as in *.example.com`,
		"www.*.example":             `name "www.*.example": a * only stands before a name, as in *.example.com`,
		"ads..example":              `name "ads..example": two dots with nothing between them`,
		"ads.example..":             `name "ads.example..": two dots with nothing between them`,
		long + ".example":           `name "` + long + `.example": label of 64 bytes; one has at most 63`,
		strings.Repeat("a.", 127):   `name "` + strings.Repeat("a.", 127) + `": `, // 253 bytes are a name
		strings.Repeat("a.", 128):   `name "` + strings.Repeat("a.", 128) + `": 255 bytes; a name has at most 253`,
		"https://ads.example/":      `name "https://ads.example/": character ':'`,
		"||ads.example^":            `name "||ads.example^": character '|'`,
		"! title":                   `name "! title": more than one word, and the first is no address`,
		"ads.example tracker":       `name "ads.example tracker": more than one word, and the first is no address`,
		"192.0.2.1":                 `name "192.0.2.1": an address, not a name`,
		"2001:db8::1":               `name "2001:db8::1": an address, not a name`,
		"0.0.0.0 good.example b@d.": `name "b@d.": character '@'`,
		"\xff.example":              `name "\xff.example": not UTF-8`,
		"a\x00b.example":            `name "a\x00b.example": character '\x00'`,
		"xn--ü.example":             `name "xn--ü.example": idna: `,
		`ads\.example`:              `name "ads\\.example": character '\\'`,
	} {
		var r domain.Set
		err := r.Load(strings.NewReader("first.example\n\n" + line + "\nlast.example\n"))
		if line == strings.Repeat("a.", 127) {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		if err == nil || !strings.HasPrefix(err.Error(), "line 3: "+want) {
			t.Errorf("%q: got %v, want line 3: %s", line, err, want)
		}
	}
}

func TestLoadReadError(t *testing.T) {
	broken := errors.New("broken")
	var r domain.Set
	err := r.Load(io.MultiReader(strings.NewReader("ads.example\n"), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "read line 2: ") {
		t.Errorf("got %v", err)
	}
	if err := r.Load(strings.NewReader(strings.Repeat("a", 1<<20))); err == nil {
		t.Error("read a line of a megabyte")
	}
}

const million = 1_000_000

// list is one of so many names, half of them with all below.
func list(n int) string {
	var b strings.Builder
	for i := range n / 2 {
		fmt.Fprintf(&b, "host%d.ads.example\n*.zone%d.tracker.example\n", i, i)
	}
	return b.String()
}

// TestMillion: a look-up allocates no more in a list of a million names than
// what it returns.
func TestMillion(t *testing.T) {
	var r domain.Set
	if err := r.Load(strings.NewReader(list(million))); err != nil {
		t.Fatal(err)
	}
	if r.Len() != million {
		t.Fatalf("rules about %d names", r.Len())
	}
	for _, tt := range []struct {
		name, rule string
		allocs     float64
	}{
		{"www.a.b.c.d.example.org.", "", 0},
		{"host1.ads.example.", "host1.ads.example", 0},
		{"HOST499999.ads.example.", "host499999.ads.example", 1}, // for the name in lower case
		{"a.b.zone7.tracker.example.", "*.zone7.tracker.example", 1},
		{strings.Repeat("a.", 120) + "zone7.tracker.example.", "*.zone7.tracker.example", 1},
	} {
		var rule string
		if allocs := testing.AllocsPerRun(100, func() { rule, _ = r.Match(tt.name) }); allocs > tt.allocs {
			t.Errorf("%s: %v allocations, want %v", tt.name, allocs, tt.allocs)
		}
		if rule != tt.rule {
			t.Errorf("%s: got rule %q, want %q", tt.name, rule, tt.rule)
		}
	}
}

func BenchmarkLoadMillion(b *testing.B) {
	text := list(million)
	b.ReportAllocs()
	for b.Loop() {
		var r domain.Set
		if err := r.Load(strings.NewReader(text)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{10, million} {
		var r domain.Set
		if err := r.Load(strings.NewReader(list(n))); err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("names=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.Match("www.shop.example.org.")
			}
		})
	}
}
