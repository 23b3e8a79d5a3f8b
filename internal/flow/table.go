package flow

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// TableOptions of [Table].
type TableOptions struct {
	Width int // in columns; 0 is 100
	Color bool
}

// The columns of a table. The three that can be long share what the others
// leave.
const (
	columnTime = iota
	columnFlow
	columnProgram
	columnDestination
	columnVia
	columnOutcome
	columnDuration
	columnBytes
	columnCount
)

// minColumn is the width below which a column says nothing any more: in a
// terminal that is so narrow, lines are too long.
const minColumn = 6

type row [columnCount]string

var header = row{"TIME", "FLOW", "PROGRAM", "DESTINATION", "VIA", "OUTCOME", "TOOK", "BYTES"}

// Table writes one line for each flow. VIA has the providers whose proxies a
// flow went through, and after a "!" those that wanted it and were skipped
// because they were down.
func Table(w io.Writer, flows []Flow, opts TableOptions) error {
	if opts.Width <= 0 {
		opts.Width = defaultWidth
	}
	layout := timeLayout(flows)
	rows := make([]row, 1, len(flows)+1)
	rows[0] = header
	keep := make([]row, len(flows)+1) // the ends that a cut must leave
	for i := range flows {
		f := &flows[i]
		rows = append(rows, f.row(layout))
		keep[i+1][columnProgram] = fmt.Sprintf("(%d)", f.Process.PID)
		keep[i+1][columnDestination] = fmt.Sprintf(":%d%s", f.Dst.Port(), f.Protocol.suffix())
	}
	widths := fit(rows, opts.Width)
	var out strings.Builder
	for i, r := range rows {
		line := ""
		for c, cell := range r {
			if c > 0 {
				line += "  "
			}
			cell = pad(cut(cell, widths[c], len(keep[i][c])), widths[c])
			if c == columnOutcome && opts.Color && i > 0 && flows[i-1].Outcome.style() != plain {
				cell = string(flows[i-1].Outcome.style()) + cell + reset
			}
			line += cell
		}
		out.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func (f *Flow) row(layout string) row {
	r := row{
		columnTime:        f.Start.Format(layout),
		columnFlow:        f.ID.String(),
		columnProgram:     fmt.Sprintf("%s(%d)", clean(f.Program()), f.Process.PID),
		columnDestination: f.destination(),
		columnVia:         f.via(),
		columnOutcome:     string(f.Outcome),
	}
	if f.Process.PID == 0 && f.Program() == "" {
		r[columnProgram] = "?"
	}
	if !f.End.IsZero() {
		r[columnDuration] = tookText(f.Duration())
	}
	if sent, received, known := f.Bytes(); known {
		r[columnBytes] = f.Protocol.amount(sent + received)
	}
	return r
}

// destination has the name in the place of the address, if one is known.
func (f *Flow) destination() string {
	if f.Name == "" || !f.Dst.IsValid() {
		return f.Protocol.endpoint(f.Dst)
	}
	return fmt.Sprintf("%s:%d%s", clean(f.Name), f.Dst.Port(), f.Protocol.suffix())
}

// via is the chain in a word: a→b, with those skipped for being down where
// they would have stood.
func (f *Flow) via() string {
	var parts []string
	for i := range f.Hops {
		h := &f.Hops[i]
		for _, s := range h.Skipped {
			if s.Reason == SkipDown {
				parts = append(parts, "!"+clean(s.Provider))
			}
		}
		switch h.Kind {
		case Redirected:
			parts = append(parts, clean(h.Provider))
		case Forbidden, QUICDropped, Refused:
			parts = append(parts, "✗"+clean(h.Provider))
		}
	}
	return strings.Join(parts, "→")
}

// timeLayout leaves the date out when all flows are of one day.
func timeLayout(flows []Flow) string {
	for i := range flows {
		if flows[i].Start.Format(time.DateOnly) != flows[0].Start.Format(time.DateOnly) {
			return "01-02 " + time.TimeOnly
		}
	}
	return time.TimeOnly
}

// fit makes the columns as wide as their widest cell. When that is too much,
// those that can be cut give way, always the one that has most beyond its
// fair share.
func fit(rows []row, width int) [columnCount]int {
	var widths [columnCount]int
	for _, r := range rows {
		for c, cell := range r {
			widths[c] = max(widths[c], columns(cell))
		}
	}
	total := 2 * (columnCount - 1)
	for _, w := range widths {
		total += w
	}
	// When all are long: an IPv4 destination is still whole.
	fair := [columnCount]int{columnProgram: 12, columnDestination: 17, columnVia: 11}
	for ; total > width; total-- {
		most := columnDestination
		for _, c := range []int{columnProgram, columnVia} {
			if widths[c]-fair[c] > widths[most]-fair[most] {
				most = c
			}
		}
		if widths[most] <= minColumn {
			break
		}
		widths[most]--
	}
	return widths
}

// tookText: what was refused in the connect() itself took no time to speak of.
func tookText(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return short(d)
}
