package flow

import (
	"cmp"
	"slices"
	"time"
)

// Apply adds what the event says to the flow and reports whether that was
// news. Events may come in any order and more than once, and any may be
// missing: the same set of events always makes the same flow. The first event
// gives an empty flow its ID; events of other flows are not news.
func (f *Flow) Apply(e Event) bool {
	empty := f.ID == 0 && len(f.Hops) == 0
	if e.Flow != f.ID && !empty || e.Hop < 0 {
		return false
	}
	i, found := slices.BinarySearchFunc(f.Hops, e.Hop, func(h Hop, n int) int { return cmp.Compare(h.N, n) })
	hop := Hop{N: e.Hop}
	if found {
		hop = f.Hops[i]
	}
	linked := f.link(e)
	if !hop.apply(e) {
		return linked
	}
	f.ID = e.Flow
	if found {
		f.Hops[i] = hop
	} else {
		f.Hops = slices.Insert(f.Hops, i, hop)
	}
	f.Conclude()
	return true
}

// link adds the flows of which this one may be a part. They come in one event,
// before the outcome.
func (f *Flow) link(e Event) bool {
	if len(f.Links) > 0 || len(e.Links) == 0 {
		return false
	}
	f.Links = slices.Clone(e.Links)
	return true
}

func (h *Hop) apply(e Event) bool {
	switch e.Kind {
	case Redirected, Passed, Forbidden, QUICDropped, Refused, Looped:
		return h.connect(e)
	case Linked:
		e.Kind, e.Kinship = Passed, Ambiguous // until the outcome is seen, which may have the same time
		e.Time = e.Time.Add(-1)
		return h.connect(e)
	case Accepted:
		return h.accept(e)
	case Closed:
		return h.close(e)
	}
	return false
}

// connect takes an outcome. A later one is another try, and what an earlier
// connection came to is then of no interest any more.
func (h *Hop) connect(e Event) bool {
	if !h.Connected.IsZero() && !e.Time.After(h.Connected) {
		return false
	}
	h.Kind, h.Provider, h.Filter, h.State = e.Kind, e.Provider, e.Filter, e.State
	h.Protocol, h.Dst, h.Name, h.Process, h.Skipped, h.Kinship = e.Protocol, e.Dst, e.Name, e.Process, e.Skipped, e.Kinship
	h.Connected = e.Time
	if h.Accepted.Before(h.Connected) {
		h.Accepted = time.Time{}
	}
	if began(h.Closed, h.Duration).Before(h.Connected) {
		h.Closed, h.Duration, h.Sent, h.Received, h.Error = time.Time{}, 0, 0, 0, ""
	}
	return true
}

func (h *Hop) accept(e Event) bool {
	if e.Time.Before(h.Connected) || !e.Time.After(h.Accepted) {
		return false
	}
	h.Accepted = e.Time
	if h.Connected.IsZero() {
		h.Kind, h.Provider = Redirected, e.Provider // nothing else is accepted
	}
	return true
}

func (h *Hop) close(e Event) bool {
	start := began(e.Time, e.Duration)
	if start.Before(h.Connected) {
		return false
	}
	if !h.Closed.IsZero() {
		if c := start.Compare(began(h.Closed, h.Duration)); c < 0 || c == 0 && !e.Time.After(h.Closed) {
			return false
		}
	}
	h.Closed, h.Duration = e.Time, e.Duration
	h.Sent, h.Received, h.Error = e.Sent, e.Received, e.Error
	if h.Connected.IsZero() && h.Accepted.IsZero() {
		h.Kind, h.Provider = Passed, e.Provider
		if e.Provider != "" {
			h.Kind = Redirected
		}
	}
	return true
}

// slack is by how much the kernel's measure of a connection's duration may
// differ from that between the times of its events.
const slack = time.Millisecond

// began returns the last moment at which a connection can have begun that was
// closed at a time, after a duration. It decides which of several tries on one
// hop an event speaks of.
func began(closed time.Time, after time.Duration) time.Time {
	return closed.Add(-max(after-slack, 0))
}

// Conclude works out again what follows from the hops, of which there must be
// one. Apply does it; so must whoever makes a flow in another way.
func (f *Flow) Conclude() {
	first := &f.Hops[0]
	f.Process = Process{}
	// Nobody can tell of an earlier process than the proxy's.
	if first.N == 0 || first.Kinship == Implied {
		f.Process = first.Process
	}
	f.Protocol, f.Dst, f.Name = first.Protocol, first.Dst, first.Name
	for i := 1; i < len(f.Hops) && !f.Dst.IsValid(); i++ {
		f.Protocol, f.Dst, f.Name = f.Hops[i].Protocol, f.Hops[i].Dst, f.Hops[i].Name
	}
	f.Start = f.earliest()
	f.End = first.Closed
	if first.Denied() {
		f.End = first.Connected
	}
	f.Outcome = f.outcome()
}

func (f *Flow) earliest() time.Time {
	var start time.Time
	for i := range f.Hops {
		h := &f.Hops[i]
		for _, t := range []time.Time{h.Connected, h.Accepted, h.Closed.Add(-h.Duration)} {
			if t.After(time.Time{}) && (start.IsZero() || t.Before(start)) {
				start = t
			}
		}
	}
	return start
}

// outcome is that of the last connection that went wrong: the proxies before
// it only passed the bad news on.
func (f *Flow) outcome() Outcome {
	for i := len(f.Hops) - 1; i >= 0; i-- {
		switch h := &f.Hops[i]; {
		case h.Denied():
			return Outcome(h.Kind)
		case h.Error != "":
			return Failed
		}
	}
	if f.End.IsZero() {
		return Open
	}
	return Done
}
