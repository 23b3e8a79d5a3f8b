//go:build linux

package main

import (
	"context"
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
