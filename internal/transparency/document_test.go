//go:build linux

package transparency

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// document is docs/transparency.md by its sections.
type document map[string][]string

func readDocument(t *testing.T) document {
	t.Helper()
	text, err := os.ReadFile("../../docs/transparency.md")
	if err != nil {
		t.Fatal(err)
	}
	d := document{}
	section := ""
	for line := range strings.Lines(string(text)) {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			section = strings.TrimSpace(title)
		}
		d[section] = append(d[section], strings.TrimSpace(line))
	}
	return d
}

// row is one difference: what a program sees without and with proxies.
type row struct{ name, without, with string }

func (r row) String() string {
	return fmt.Sprintf("%s: without %q, with proxies %q", r.name, r.without, r.with)
}

var tableLine = regexp.MustCompile(`^\| (.*?) \| (.*?) \| (.*?) \| .+ \|$`)

// rows returns the differences that stand in the tables of a section: what,
// without, with, why. If there is more than one kind, that is the first word
// of what.
func (d document) rows(section, kind string) []row {
	var rows []row
	for _, line := range d[section] {
		m := tableLine.FindStringSubmatch(line)
		if m == nil || strings.HasPrefix(m[1], "-") || m[2] == "without" {
			continue
		}
		name := strings.ReplaceAll(m[1], "`", "")
		if kind != "" {
			var ok bool
			if name, ok = strings.CutPrefix(name, kind+": "); !ok {
				continue
			}
		}
		rows = append(rows, row{name, m[2], m[3]})
	}
	return rows
}

func contains(rows []row, r row) bool { return slices.Contains(rows, r) }

// checkRows compares what differs with what is known to differ.
func checkRows(t *testing.T, got, want []row) {
	t.Helper()
	for _, r := range got {
		if !contains(want, r) {
			t.Errorf("a difference that docs/transparency.md does not explain: %s", r)
		}
	}
	for _, r := range want {
		if !contains(got, r) {
			t.Errorf("docs/transparency.md lists a difference that there is not: %s", r)
		}
	}
}
