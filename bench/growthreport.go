//go:build linux

package main

import (
	"fmt"
	"io"
	"strings"
)

// growth is what was measured of it.
type growth struct {
	results results
	memory  map[key]uint64 // by kind and size
}

// growthRow compares the sizes of one kind of policy in one measure.
type growthRow struct {
	Measure string    `json:"measure"`
	Kind    string    `json:"kind"`
	Direct  *figures  `json:"direct,omitempty"`
	Sizes   []figures `json:"sizes"`  // compared with direct
	Growth  figures   `json:"growth"` // the last, compared with the first
	Goal    *goal     `json:"goal"`
}

// applyRow is what it takes to put a policy in force.
type applyRow struct {
	Kind    string  `json:"kind"`
	Filters int     `json:"filters"`
	NS      float64 `json:"median_ns"`
	Bytes   uint64  `json:"map_bytes"`
}

var growthLayout = []string{measureStray, measureStrayHook, measurePass, measureRedirect, measureAny, measureHook}

func sizeName(n int) string { return fmt.Sprintf("%d filters", n) }

func (g *growth) rows() []growthRow {
	var rows []growthRow
	for _, measure := range growthLayout {
		for _, k := range kinds {
			section := k.section(measure)
			f, ok := g.results.of(section, sizeName(sizes[len(sizes)-1]), sizeName(sizes[0]))
			if !ok {
				continue
			}
			row := growthRow{Measure: measure, Kind: k.name, Growth: f, Goal: growthGoal.judge(f)}
			if direct, ok := g.results.of(section, nameDirect, nameDirect); ok {
				row.Direct = &direct
			}
			for _, n := range sizes {
				f, _ := g.results.of(section, sizeName(n), nameDirect)
				row.Sizes = append(row.Sizes, f)
			}
			rows = append(rows, row)
		}
	}
	return rows
}

func (g *growth) applies() []applyRow {
	var rows []applyRow
	for _, k := range kinds {
		for _, n := range sizes {
			f, _ := g.results.of(k.section(measureApply), sizeName(n), sizeName(n))
			rows = append(rows, applyRow{k.name, n, f.Median, g.memory[key{k.name, sizeName(n)}]})
		}
	}
	return rows
}

func printGrowth(w io.Writer, rows []growthRow) {
	fmt.Fprintf(w, "\nwhat the number of filters costs: ns, x compared with direct; at the end the last compared with the first\n")
	fmt.Fprintf(w, "  %-14s%7s", "", "direct")
	for _, n := range sizes {
		fmt.Fprintf(w, "%7d%6s", n, "x")
	}
	fmt.Fprintf(w, "%8s%15s  goal\n", "growth", "")
	measure := ""
	for _, r := range rows {
		if r.Measure != measure {
			measure = r.Measure
			fmt.Fprintf(w, "%s\n", measure)
		}
		fmt.Fprintf(w, "  %-14s%s%7.3f%15s  %s\n", r.Kind, r.cells(), r.Growth.Ratio,
			fmt.Sprintf("[%.3f, %.3f]", r.Growth.RatioLow, r.Growth.RatioHigh), r.Goal)
	}
}

// cells leaves out what the kernel's own clock can not compare with.
func (r growthRow) cells() string {
	var b strings.Builder
	if r.Direct == nil {
		fmt.Fprintf(&b, "%7s", "")
	} else {
		fmt.Fprintf(&b, "%7.0f", r.Direct.Median)
	}
	for _, f := range r.Sizes {
		fmt.Fprintf(&b, "%7.0f", f.Median)
		if r.Direct == nil {
			fmt.Fprintf(&b, "%6s", "")
		} else {
			fmt.Fprintf(&b, "%6.2f", f.Ratio)
		}
	}
	return b.String()
}

func printApplies(w io.Writer, rows []applyRow) {
	fmt.Fprintf(w, "\nApply in the place of a policy of as many filters, and the kernel's account of the policy's maps\n")
	for _, r := range rows {
		fmt.Fprintf(w, "  %-14s%6d filters%10.1f ms%10.2f MB\n", r.Kind, r.Filters, r.NS/1e6, float64(r.Bytes)/1e6)
	}
}
