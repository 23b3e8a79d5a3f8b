//go:build linux

package main

import (
	"math"
	"slices"
)

type key struct{ section, name string }

// results has the samples of each variant by turn.
type results map[key]map[int][]float64

func (r results) add(section, name string, turn int, samples []float64) {
	k := key{section, name}
	if r[k] == nil {
		r[k] = make(map[int][]float64)
	}
	r[k][turn] = samples
}

// figures are nanoseconds per call. Added and Ratio compare with the first
// variant of the section in the same turn; each is the median of all turns.
type figures struct {
	Median float64 `json:"median_ns"`
	P10    float64 `json:"p10_ns"` // of all calls
	P90    float64 `json:"p90_ns"`
	P99    float64 `json:"p99_ns"`
	Added  float64 `json:"added_ns"`
	Low    float64 `json:"added_low_ns"` // Low and High: the 95 % interval of Added
	High   float64 `json:"added_high_ns"`
	Turns  int     `json:"turns"`

	Ratio     float64 `json:"ratio"`
	RatioLow  float64 `json:"ratio_low"` // and its 95 % interval
	RatioHigh float64 `json:"ratio_high"`
}

// of works out a variant's figures, compared with those of base. ok is false
// if it was never measured.
func (r results) of(section, name, base string) (f figures, ok bool) {
	var medians, samples, ratios, added []float64
	compared := r[key{section, base}]
	for turn, batch := range r[key{section, name}] {
		median := quantile(batch, 0.5)
		medians = append(medians, median)
		samples = append(samples, batch...)
		if d := quantile(compared[turn], 0.5); d > 0 {
			ratios = append(ratios, median/d)
			added = append(added, median-d)
		}
	}
	if len(medians) == 0 {
		return figures{}, false
	}
	f = figures{
		Median: quantile(medians, 0.5),
		P10:    quantile(samples, 0.1),
		P90:    quantile(samples, 0.9),
		P99:    quantile(samples, 0.99),
		Ratio:  quantile(ratios, 0.5),
		Added:  quantile(added, 0.5),
		Turns:  len(medians),
	}
	f.Low, f.High = interval(added)
	f.RatioLow, f.RatioHigh = interval(ratios)
	return f, true
}

// interval is the 95 % interval of the median, if the values are independent:
// the number of values below the true median is binomial, whatever they are
// like.
func interval(values []float64) (low, high float64) {
	if len(values) == 0 {
		return 0, 0
	}
	sorted := slices.Sorted(slices.Values(values))
	n := float64(len(sorted))
	at := max(0, int((n-1.96*math.Sqrt(n))/2))
	return sorted[at], sorted[len(sorted)-1-at]
}

// quantile interpolates; it leaves values alone.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	below := int(math.Floor(at))
	above := min(below+1, len(sorted)-1)
	return sorted[below] + (at-float64(below))*(sorted[above]-sorted[below])
}
