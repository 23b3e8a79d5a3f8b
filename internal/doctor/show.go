package doctor

import (
	"fmt"
	"io"
	"strings"
)

const width = 100

// colours are those of a terminal, by level.
var colours = map[Level]string{OK: "32", Info: "36", Warning: "33", Problem: "1;31"}

// Show prints findings for people, check by check, in lines of 100 columns.
func Show(w io.Writer, findings []Finding, colour bool) error {
	var b strings.Builder
	check := ""
	for _, f := range findings {
		if f.Check != check {
			check = f.Check
			fmt.Fprintf(&b, "%s\n", check)
		}
		level := fmt.Sprintf("%-7s", f.Level)
		if colour {
			level = "\x1b[" + colours[f.Level] + "m" + level + "\x1b[0m"
		}
		const indent = "           " // "  problem  "
		fmt.Fprintf(&b, "  %s  %s\n", level, wrap(f.Subject, indent))
		if f.Level == OK {
			continue
		}
		if f.Meaning != "" {
			fmt.Fprintf(&b, "%s%s\n", indent, wrap(f.Meaning, indent))
		}
		if f.Remedy != "" {
			fmt.Fprintf(&b, "%sdo: %s\n", indent, wrap(f.Remedy, indent+"    "))
		}
	}
	fmt.Fprintf(&b, "\n%s\n", Conclude(findings))
	_, err := io.WriteString(w, b.String())
	return err
}

// Conclude counts what was found, in words.
func Conclude(findings []Finding) string {
	n := count(findings)
	return fmt.Sprintf("%s, %s, %d to know", plural(n[Problem], "problem"), plural(n[Warning], "warning"), n[Info])
}

// Problems counts the findings with which waybill can not work.
func Problems(findings []Finding) int { return count(findings)[Problem] }

func count(findings []Finding) map[Level]int {
	n := make(map[Level]int)
	for _, f := range findings {
		n[f.Level]++
	}
	return n
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// wrap breaks text between words. The first line is taken to begin after
// indent, as the others do. A word that is too long, such as a path, has a
// line of its own.
func wrap(text, indent string) string {
	var b strings.Builder
	column := len(indent)
	for i, word := range strings.Fields(text) {
		n := len([]rune(word))
		switch {
		case i == 0:
		case column+1+n > width:
			b.WriteString("\n" + indent)
			column = len(indent)
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String()
}
