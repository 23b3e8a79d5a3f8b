//go:build linux

package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// cpus chooses the CPU of those who connect, which take turns, and the CPU of
// everything else: the first and the last of those that we may use.
func cpus() (client, other int, err error) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return 0, 0, fmt.Errorf("read CPU affinity: %w", err)
	}
	client = -1
	for cpu := range 64 * len(allowed) {
		if !allowed.IsSet(cpu) {
			continue
		}
		if client < 0 {
			client = cpu
		}
		other = cpu
	}
	return client, other, nil
}

// pin keeps this thread on one CPU.
func pin(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin to CPU %d: %w", cpu, err)
	}
	return nil
}
