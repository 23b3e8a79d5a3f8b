//go:build linux

package main

import "time"

// slack is for the client to be told of a proxy's death: a segment that was
// lost in the closing of a socket is sent again, and answered with a reset,
// after 200 ms, and after 400 more.
const slack = 700 * time.Millisecond

// breaks says whether a fault of this kind may break connections. All others
// must go unnoticed.
func (k faultKind) breaks() bool {
	switch k {
	case killProxy, starveFiles, starveProxy:
		return true
	}
	return false
}

func (in *injected) explains(f *failure) bool {
	broken := f.What == wasReset || f.What == wasEnded || f.What == wasRefused
	return broken && in.Kind.breaks() && f.End.After(in.From) && f.End.Before(in.To.Add(slack))
}

const examples = 3

func (in *injected) enter(f *failure) {
	in.Failures[f.What]++
	in.Last = max(in.Last, f.End.Sub(in.To))
	if len(in.Examples) < examples {
		in.Examples = append(in.Examples, *f)
	}
}

// settle enters each failure with the fault that explains it and returns those
// that none does.
func settle(faults []injected, failures []failure) (unexplained []failure) {
	for i := range failures {
		f := &failures[i]
		found := false
		for j := range faults {
			if found = faults[j].explains(f); found {
				faults[j].enter(f)
				break
			}
		}
		if !found {
			unexplained = append(unexplained, *f)
		}
	}
	return unexplained
}
