//go:build transparency

package transparency

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// results is what became of each test, by its name: pass, fail or skip.
type results map[string]string

// String counts them.
func (r results) String() string {
	counts := map[string]int{}
	for _, result := range r {
		counts[result]++
	}
	return fmt.Sprintf("%d tests passed, %d failed, %d were skipped", counts["pass"], counts["fail"], counts["skip"])
}

var resultLine = regexp.MustCompile(`^ *--- (PASS|FAIL|SKIP): (\S+) \(`)

func parseResults(output string) results {
	r := results{}
	for line := range strings.Lines(output) {
		// A test that runs itself again in another process has two results.
		if m := resultLine.FindStringSubmatch(line); m != nil && r[m[2]] != "fail" {
			r[m[2]] = strings.ToLower(m[1])
		}
	}
	return r
}

// differences returns what is not the same in both. A test that never came to
// its end differs, too.
func differences(without, with results) []row {
	names := slices.Collect(maps.Keys(without))
	for name := range with {
		if _, ok := without[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var rows []row
	for _, name := range names {
		d := row{name: name, without: "no result", with: "no result"}
		if result, ok := without[name]; ok {
			d.without = result
		}
		if result, ok := with[name]; ok {
			d.with = result
		}
		if d.without != d.with {
			rows = append(rows, d)
		}
	}
	return rows
}

// outputOf returns the first lines that a test has printed. Those of tests
// that run in parallel have a line with its name before them.
func outputOf(output, test string) string {
	const most = 5
	var lines []string
	printing := false
	for line := range strings.Lines(output) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 3 && fields[0] == "===":
			printing = fields[2] == test
		case printing && len(lines) < most && !resultLine.MatchString(line):
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}
