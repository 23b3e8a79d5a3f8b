package flow

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
)

// defaultWidth is that of drawings and tables, in columns.
const defaultWidth = 100

// DrawOptions of [Flow.Draw].
type DrawOptions struct {
	Width int // in columns; 0 is 100
	Color bool
}

// style of a text, as an escape sequence of terminals.
type style string

const (
	plain  style = ""
	bold   style = "\x1b[1m"
	dim    style = "\x1b[2m"
	red    style = "\x1b[31m"
	green  style = "\x1b[32m"
	yellow style = "\x1b[33m"
	reset        = "\x1b[0m"
)

type drawing struct {
	bytes.Buffer
	DrawOptions
}

// Draw draws the whole chain for a person, from the application down to the
// destination.
func (f *Flow) Draw(w io.Writer, opts DrawOptions) error {
	d := &drawing{DrawOptions: opts}
	if d.Width <= 0 {
		d.Width = defaultWidth
	}
	d.title(f)
	d.application(f)
	d.links(f)
	for i := range f.Hops {
		d.leg(f, &f.Hops[i])
	}
	_, err := w.Write(d.Bytes())
	return err
}

// line writes one line, cut at the width. What stands in front of the text
// is part of the drawing.
func (d *drawing) line(front string, s style, text string) {
	d.WriteString(front)
	text = cut(text, d.Width-columns(front), 0)
	if d.Color && s != plain && text != "" {
		text = string(s) + text + reset
	}
	d.WriteString(text)
	d.WriteByte('\n')
}

func (d *drawing) title(f *Flow) {
	end := string(f.Outcome)
	if !f.End.IsZero() {
		if took := f.Duration(); took > 0 {
			end += " after " + short(took)
		}
	}
	d.line("", f.Outcome.style(), fmt.Sprintf("flow %s, %s: %s", f.ID, f.Start.Format("2006-01-02 15:04:05.000"), end))
	d.WriteByte('\n')
}

func (o Outcome) style() style {
	switch o {
	case Done:
		return green
	case Open:
		return plain
	}
	return red
}

func (d *drawing) application(f *Flow) {
	if f.Process.PID == 0 && f.Program() == "" {
		d.line("", bold, "unknown program")
		return
	}
	user := clean(f.Details.User)
	if user == "" {
		user = fmt.Sprintf("uid %d", f.Process.UID)
	}
	d.line("", bold, fmt.Sprintf("%s (pid %d, %s)", clean(f.Program()), f.Process.PID, user))
	if f.Details.Executable != "" && !f.Details.Unverified {
		d.leaf("program    ", clean(f.Details.Executable))
	}
	if len(f.Details.Args) > 0 {
		d.leaf("arguments  ", commandLine(f.Details.Args))
	}
	switch {
	case f.Details.Container != "":
		d.leaf("container  ", clean(f.Details.Container))
	case f.Details.Unit != "":
		d.leaf("unit       ", clean(f.Details.Unit))
	case f.Details.Cgroup != "":
		d.leaf("cgroup     ", clean(f.Details.Cgroup))
	}
}

func (d *drawing) leaf(label, value string) { d.line("│   ", dim, label+value) }

// links names the flows that may be the beginning of this one.
func (d *drawing) links(f *Flow) {
	if len(f.Links) == 0 {
		return
	}
	d.line("┆   ", dim, "the proxy that begins it had several to go on with; it may be the rest of")
	for _, id := range f.Links {
		d.line("┆   ", dim, "  flow "+id.String())
	}
}

// leg draws one connection and what it arrived at.
func (d *drawing) leg(f *Flow, h *Hop) {
	if h.N > 0 && f.Hop(h.N-1) == nil && h.Kinship != Ambiguous {
		d.line("┆   ", dim, "nothing was seen of the connection before")
	}
	d.line("│", plain, "")
	connects := h.Protocol.verb() + " to " + h.Protocol.endpoint(h.Dst)
	if h.Name != "" {
		connects += " (" + clean(h.Name) + ")"
	}
	if added := f.Added(h.N); added > 0 {
		connects += ", " + short(added) + " later"
	}
	switch h.Kinship {
	case Implied:
		connects += ", without records"
	case Inherited:
		connects += ", without records: it goes on with the one before"
	case Ambiguous:
		connects += ", without records: it goes on with one of several"
	}
	d.line("│   ", plain, connects)
	for _, s := range h.Skipped {
		d.line("│   ", yellow, fmt.Sprintf("! %s skipped: %s", clean(s.Provider), f.why(h, s)))
	}
	d.verdict(h)
	d.traffic(h)
	d.arrive(f, h)
}

// why says in words why a provider was skipped.
func (f *Flow) why(h *Hop, s Skip) string {
	switch s.Reason {
	case SkipDown:
		return "its proxy is down"
	case SkipShadow:
		return "it is in shadow mode"
	case SkipState:
		had := func(before Hop) bool {
			return before.N < h.N && before.Provider == s.Provider && before.Kind == Redirected
		}
		if slices.ContainsFunc(f.Hops, had) {
			return "it has had this flow"
		}
		return "it does not want a connection in this state"
	}
	return clean(string(s.Reason))
}

func (d *drawing) verdict(h *Hop) {
	var reasons []string
	if h.Filter != "" {
		reasons = append(reasons, "filter "+clean(h.Filter))
	}
	if h.State != "" {
		reasons = append(reasons, clean(h.State))
	}
	by := clean(h.Provider)
	if len(reasons) > 0 {
		by += " (" + strings.Join(reasons, ", ") + ")"
	}
	switch h.Kind {
	case Redirected:
		d.line("│   ", plain, "redirected to "+by)
	case Forbidden:
		d.line("│   ", red, "✗ forbidden by "+by)
	case QUICDropped:
		d.line("│   ", red, "✗ refused, so that it uses TCP, which is redirected, by "+by)
	case Refused:
		d.line("│   ", red, "✗ refused, because its proxy is down, by "+by)
	case Looped:
		d.line("│   ", red, "✗ refused: the flow has as many hops as it may have")
	}
}

func (d *drawing) traffic(h *Hop) {
	if h.Error != "" {
		d.line("│   ", red, "✗ "+clean(h.Error))
	}
	if h.Closed.IsZero() || h.Denied() {
		return
	}
	d.line("│   ", dim, fmt.Sprintf("sent %s, received %s in %s", h.Protocol.amount(h.Sent), h.Protocol.amount(h.Received), short(h.Duration)))
}

// arrive draws the arrow and the next party: a proxy, the destination, or
// nobody.
func (d *drawing) arrive(f *Flow, h *Hop) {
	if h.Denied() {
		d.line("╳", plain, "")
		return
	}
	handshake := ""
	if t := h.Handshake(); t > 0 {
		handshake = "   " + h.Protocol.arrival() + " " + short(t)
	}
	d.line("▼", dim, handshake)
	if h.Kind != Redirected {
		d.line("", bold, h.Protocol.endpoint(h.Dst))
		return
	}
	d.line("", bold, clean(h.Provider)+f.proxyOf(h))
	if f.Hop(h.N+1) == nil && h.N == f.Hops[len(f.Hops)-1].N {
		d.line("┆   ", dim, "has opened no connection for it, so far as was seen")
	}
}

// proxyOf describes the process to which hop h was redirected: the one that
// made the next hop.
func (f *Flow) proxyOf(h *Hop) string {
	next := f.Hop(h.N + 1)
	if next == nil || next.Process.PID == 0 {
		return ""
	}
	parts := []string{fmt.Sprintf("pid %d", next.Process.PID), fmt.Sprintf("uid %d", next.Process.UID)}
	if next.Process.Comm != "" {
		parts = slices.Insert(parts, 0, clean(next.Process.Comm))
	}
	return " (" + strings.Join(parts, ", ") + ")"
}
