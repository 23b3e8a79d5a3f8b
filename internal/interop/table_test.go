//go:build linux

package interop

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// table is printed as Markdown, for docs/proxies.md.
type table struct{ rows [][]string }

func newTable() *table {
	head := []string{"chain"}
	for _, load := range payloads {
		head = append(head, string(load))
	}
	return &table{rows: [][]string{append(head, "flow id", "without records")}}
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) String() string {
	widths := make([]int, len(t.rows[0]))
	for _, row := range t.rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var out strings.Builder
	for n, row := range t.rows {
		for i, cell := range row {
			fmt.Fprintf(&out, "| %s%s ", cell, strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)))
		}
		out.WriteString("|\n")
		if n == 0 {
			for _, w := range widths {
				fmt.Fprintf(&out, "|%s", strings.Repeat("-", w+2))
			}
			out.WriteString("|\n")
		}
	}
	return out.String()
}

// text says of both families how a payload went through a chain.
func text(s *stage, cells []*cell) string {
	var parts []string
	for _, c := range cells {
		parts = append(parts, c.text(s))
	}
	if parts[0] == parts[1] {
		return parts[0]
	}
	return fmt.Sprintf("4: %s; 6: %s", parts[0], parts[1])
}

func (c *cell) text(s *stage) string {
	if c.failed {
		return "FAILED"
	}
	if name := c.hangs(s); name != "" {
		return "hangs in " + name
	}
	if len(c.path) == 0 {
		return "–"
	}
	words := "yes"
	switch {
	case c.load == payloadDownload:
		words = size(c.size)
		if c.size >= largeDownload {
			words += fmt.Sprintf(" (%.0f MiB/s)", float64(c.size)/c.report.Took.Seconds()/(1<<20))
		}
	case c.opened(s):
		words = "opened"
	}
	var past []string
	for _, name := range c.chain {
		if !slices.Contains(c.path, name) {
			past = append(past, name)
		}
	}
	if len(past) > 0 {
		words += ", past " + strings.Join(past, " and ")
	}
	return words
}
