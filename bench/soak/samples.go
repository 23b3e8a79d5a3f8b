//go:build linux

package main

import (
	"context"
	"math"
	"sync"
	"time"
)

// sample is the state of the run at one moment. Memory is in bytes; 0: it did
// not run.
type sample struct {
	At       time.Duration     `json:"at"`
	Flows    int               `json:"flows"` // tried so far
	InFlight int               `json:"in_flight"`
	Memory   map[string]uint64 `json:"memory"`  // resident, of the daemon and the proxies
	Maps     uint64            `json:"maps"`    // as the kernel accounts for them
	Charged  int               `json:"charged"` // kernel memory of the daemon's memory cgroup; 0: there is none
}

const (
	wantedSamples = 24
	daemonName    = "daemon"
)

// sampler takes samples, each as long after the one before.
type sampler struct {
	scene  *scene
	daemon *daemon
	load   *load
	start  time.Time

	mu      sync.Mutex
	samples []sample
}

func (s *sampler) run(ctx context.Context, every time.Duration) {
	for sleep(ctx, every) == nil {
		taken := s.take()
		s.mu.Lock()
		s.samples = append(s.samples, taken)
		s.mu.Unlock()
	}
}

func (s *sampler) take() sample {
	tally, _ := s.load.so()
	out := sample{At: time.Since(s.start), Memory: map[string]uint64{daemonName: residentOf(s.daemon.pid())}}
	for _, n := range tally.Tried {
		out.Flows += n
	}
	for _, name := range chain {
		out.Memory[name] = residentOf(s.scene.pid(name))
	}
	if maps, err := readMaps(); err == nil {
		out.Maps, out.InFlight = maps.memory, maps.entries["inflight"]
	}
	if m := s.scene.memory; m.available() {
		out.Charged, _ = m.read(memoryState, "memory.kmem.usage_in_bytes")
	}
	return out
}

// growthAfter is how long a run must be for its memory to say something: a
// process that has just been started grows for a while.
const growthAfter = 2 * time.Minute

// grew reports whether something grows without end: at the end of the run it
// is never as small as it was, and some more, in the first half.
func grew(samples []sample, value func(*sample) uint64) bool {
	const margin = 4 << 20
	most, least := uint64(0), uint64(math.MaxUint64)
	for i := range samples {
		switch n := value(&samples[i]); {
		case i < len(samples)/2:
			most = max(most, n)
		case i >= len(samples)*3/4 && n > 0:
			least = min(least, n)
		}
	}
	return least != math.MaxUint64 && least > most+most/4+margin
}

// growing lists what grew in the course of the run.
func growing(samples []sample) (names []string) {
	for _, name := range append([]string{daemonName}, chain...) {
		if grew(samples, func(s *sample) uint64 { return s.Memory[name] }) {
			names = append(names, name)
		}
	}
	if grew(samples, func(s *sample) uint64 { return s.Maps }) {
		names = append(names, "maps")
	}
	if grew(samples, func(s *sample) uint64 { return uint64(s.Charged) }) {
		names = append(names, "kernel memory")
	}
	return names
}
