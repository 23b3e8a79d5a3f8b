//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/waybill-net/waybill/internal/control"
)

// report is what a run found.
type report struct {
	Seed    uint64       `json:"seed"`
	Seconds float64      `json:"seconds"`
	Tried   map[kind]int `json:"tried"`
	Arrived map[kind]int `json:"arrived"`
	Rate    float64      `json:"flows_per_second"`
	Slowest float64      `json:"slowest_short_ms"`

	Recorded int `json:"recorded"` // flows that the daemon has written down and kept

	Explained   map[string]int `json:"failed_by_a_fault"` // by what became of them
	Unexplained []failure      `json:"unexplained"`

	Checks    []check           `json:"must_be_zero"`
	Faults    []injected        `json:"faults"`
	Providers []providerLine    `json:"providers"`
	Counters  map[string]uint64 `json:"counters"`
	Left      remains           `json:"left"`
	Samples   []sample          `json:"samples"`
	Growing   []string          `json:"growing,omitempty"`
	Origin    originBook        `json:"origin"`
	Details   []string          `json:"details"` // of what the origin found wrong
	Held      bool              `json:"held"`
}

// check is something that must be zero.
type check struct {
	Name string `json:"name"`
	N    int    `json:"n"`
}

type providerLine struct {
	Name string `json:"name"`
	control.ProviderCounters
	Restarts int `json:"restarts"`
}

func (r *report) count(name string, n int) { r.Checks = append(r.Checks, check{name, n}) }

func (r *report) addLoad(t tally, failures []failure, faults []injected, samples []sample) {
	r.Tried, r.Arrived, r.Faults, r.Samples = t.Tried, t.Arrived, faults, samples
	r.Slowest = float64(t.Slowest.Microseconds()) / 1000
	tried := sum(t.Tried)
	r.Rate = float64(tried) / r.Seconds
	r.Explained = make(map[string]int)
	r.Unexplained = settle(r.Faults, failures)
	notCaused := 0
	for i := range r.Faults {
		for what, n := range r.Faults[i].Failures {
			r.Explained[what] += n
		}
		if r.Faults[i].Error != "" {
			notCaused++
		}
	}
	by := make(map[string]int)
	for _, f := range failures {
		by[f.What]++
	}
	r.count("flows unexplained", len(r.Unexplained))
	r.count("flows without an end", tried-sum(t.Arrived)-len(failures))
	r.count("flows hung", by[wasHung])
	r.count("flows corrupt", by[wasCorrupt])
	r.count("faults that could not be caused", notCaused)
	if r.Seconds >= growthAfter.Seconds() {
		r.Growing = growing(samples)
		r.count("memories that grow", len(r.Growing))
	}
}

func (r *report) addOrigin(book originBook, details []string) {
	r.Origin, r.Details = book, details
	r.count("duplicates", book.Duplicates)
	r.count("wrong destination", book.Wrong)
	r.count("corrupt at the origin", book.Corrupt)
}

func (r *report) addLeft(left remains) {
	r.Left = left
	for _, name := range sortedKeys(left.Maps) {
		r.count("entries left in "+name, left.Maps[name])
	}
	r.count("sockets left", len(left.Sockets))
	r.count("connections left at the origin", left.Origin)
	for _, name := range sortedKeys(left.After) {
		r.count("descriptors left in "+name, left.After[name].grown(left.Before[name]))
	}
}

func (r *report) addStatus(s *control.Status) {
	r.Counters = s.Counters
	for i := range s.Providers {
		p := &s.Providers[i]
		line := providerLine{Name: p.Name, ProviderCounters: p.Counters}
		if p.Proxy != nil {
			line.Restarts = p.Proxy.Restarts
		}
		r.Providers = append(r.Providers, line)
	}
	// Every end of an entry in flight is accounted for.
	c := s.Counters
	r.count("in flight and not accounted for", int(int64(c["departed"]-c["arrived"]-c["abandoned"])))
}

// conclude says whether everything is zero that must be.
func (r *report) conclude() {
	r.Held = true
	for _, c := range r.Checks {
		r.Held = r.Held && c.N == 0
	}
}

func (r *report) write(w io.Writer) error {
	if err := json.NewEncoder(w).Encode(r); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

func sum[K comparable](counts map[K]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}
