//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
)

// Report is what a run says, to people and, as JSON, to programs.
type Report struct {
	Machine  machine    `json:"machine"`
	Rounds   int        `json:"rounds"`
	Calls    int        `json:"calls_per_round"`
	Seconds  float64    `json:"seconds"`
	Notes    []string   `json:"notes,omitempty"`
	Sections []section  `json:"sections,omitempty"`
	Hooks    []hookTime `json:"hooks,omitempty"`

	Growth  []growthRow `json:"growth,omitempty"`
	Applies []applyRow  `json:"applies,omitempty"`
}

// section is the rows that are compared with one another.
type section struct {
	Name  string `json:"name"`
	Title string `json:"title"`
	Rows  []row  `json:"rows"`
}

type row struct {
	Name string `json:"name"`
	Goal *goal  `json:"goal,omitempty"`
	figures
}

// goal is a bound on the median, on what is added, or on the ratio.
type goal struct {
	AddedNS  float64 `json:"max_added_ns,omitempty"`
	MedianNS float64 `json:"max_median_ns,omitempty"`
	Ratio    float64 `json:"max_ratio,omitempty"`
	Verdict  string  `json:"verdict"`
}

// judge gives a verdict. A difference is as sure as its interval is narrow.
func (g goal) judge(f figures) *goal {
	low, high, bound := f.Low, f.High, g.AddedNS
	switch {
	case g.MedianNS > 0:
		low, high, bound = f.Median, f.Median, g.MedianNS
	case g.Ratio > 0:
		low, high, bound = f.RatioLow, f.RatioHigh, g.Ratio
	}
	switch {
	case high <= bound:
		g.Verdict = "met"
	case low > bound:
		g.Verdict = "not met"
	default:
		g.Verdict = "unclear"
	}
	return &g
}

// The goals of the project.
var (
	passGoal     = goal{AddedNS: 100}
	redirectGoal = goal{AddedNS: 2000}
	sendGoal     = goal{AddedNS: 1000} // a datagram
	optionGoal   = goal{MedianNS: 2000}
	growthGoal   = goal{Ratio: 1.1} // of the largest policy to the smallest
)

var goals = map[key]goal{
	{sectionConnect, nameAttached}:   passGoal,
	{sectionConnect, nameFull}:       passGoal,
	{sectionConnect, nameRedirected}: redirectGoal,
	{sectionSend, nameRedirected}:    sendGoal,
	{sectionSet, nameLate}:           optionGoal,
	{sectionSet, nameRecords(1)}:     optionGoal,
	{sectionSet, nameRecords(2)}:     optionGoal,
	{sectionSet, nameRecords(8)}:     optionGoal,
	{sectionGet, nameRecords(1)}:     optionGoal,
	{sectionGet, nameRecords(2)}:     optionGoal,
	{sectionGet, nameRecords(8)}:     optionGoal,
	{sectionGet, nameOriginal}:       optionGoal,
	{sectionGet, nameNetfilter}:      optionGoal,
	{sectionGet, nameOrigin}:         optionGoal,
	{sectionGet, nameState}:          optionGoal,
}

var connectRows = []string{
	nameDirect, nameAgain, nameEmpty, nameAttached, nameFull, nameRedirected, nameNftPass, nameNft,
}

// layout is the order of the table. The first row of a section is what the
// others are compared with.
var layout = []struct {
	name, title string
	rows        []string
}{
	{
		sectionElsewhere, "connect() of every other process, with hooks attached to a cgroup that it is not in",
		[]string{nameBare, nameElsewhere},
	},
	{sectionConnect, "connect() to a listener on loopback, with hooks attached; direct is outside the scope", connectRows},
	{sectionCycle, "socket(), connect() and close() together", connectRows},
	{
		sectionForwarded, "connect() of a proxy that sets no records, to go on with a connection that it has accepted",
		[]string{nameDirect, nameInherited},
	},
	{
		sectionEvents, "connect(), while a reader of the events is woken up on another CPU",
		[]string{nameDirect, nameUnread, nameRead},
	},
	{sectionSet, "setsockopt() on a fresh socket; direct is SO_KEEPALIVE outside the scope", []string{
		nameDirect, nameAgain, nameEmpty, nameTrivial, nameRecords(1), nameLate, nameRecords(2), nameRecords(8),
	}},
	{sectionGet, "getsockopt() on a connected socket; direct is SO_KEEPALIVE outside the scope", []string{
		nameDirect, nameAgain, nameEmpty, nameTrivial, nameRecords(1), nameRecords(2), nameRecords(8),
		nameOriginal, nameNetfilter, nameOrigin, nameState, nameNftAnswers,
	}},
	{
		sectionSend, "sendto() of 64 bytes, unconnected, to a socket on loopback that nobody sleeps in",
		[]string{nameDirect, nameAgain, nameEmpty, nameAttached, nameRedirected},
	},
	{sectionOf(sectionEcho, measuredSizes[0]), "64 bytes there and back", relayRows},
	{sectionOf(sectionEcho, measuredSizes[1]), "1,400 bytes there and back", relayRows},
	{sectionOf(sectionStream, measuredSizes[0]), "64 bytes there and back, 32 datagrams at once: of each", relayRows},
	{sectionOf(sectionStream, measuredSizes[1]), "1,400 bytes there and back, 32 datagrams at once: of each", relayRows},
}

var relayRows = []string{nameDirect, nameAttached, namePlainRelay, nameRelay}

func newReport(opts options, notes []string) *Report {
	return &Report{Machine: thisMachine(), Rounds: opts.rounds, Calls: opts.calls, Notes: notes}
}

// addCosts leaves out the rows that were not measured.
func (r *Report) addCosts(measured results) {
	for _, l := range layout {
		s := section{Name: l.name, Title: l.title}
		for _, name := range l.rows {
			f, ok := measured.of(l.name, name, l.rows[0])
			if !ok {
				continue
			}
			line := row{Name: name, figures: f}
			if g, ok := goals[key{l.name, name}]; ok {
				line.Goal = g.judge(f)
			}
			s.Rows = append(s.Rows, line)
		}
		if len(s.Rows) > 0 {
			r.Sections = append(r.Sections, s)
		}
	}
}

func (r *Report) write(path string) error {
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
