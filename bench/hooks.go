//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/waybill-net/waybill/internal/engine"
)

// hookTurns is how often each hook is measured. The kernel tells a sum, which
// one long interruption spoils: the median of several is better.
const hookTurns = 9

// settle is enough for the acceptors to close what they have accepted.
const settle = 5 * drainPause

// hookTime is what one hook took for one kind of call, at both ends of the
// connection, by the kernel's own clock.
type hookTime struct {
	Section string  `json:"section"`
	Name    string  `json:"name"`
	Hook    string  `json:"hook"`
	Runs    float64 `json:"runs_per_call"`
	PerRun  float64 `json:"ns_per_run"`
	PerCall float64 `json:"ns_per_call"`
}

// hook is one of the programs of this run. The engine keeps them to itself;
// the kernel says what is attached to our scope.
type hook struct {
	name    string
	op      string // of the calls that run it
	kind    ebpf.ProgramType
	attach  ebpf.AttachType
	program *ebpf.Program
}

// The bench's own SO_LINGER runs setsockopt once per connection, and untimed:
// it is not among the hooks of opConnect.
var measuredHooks = []hook{
	{name: "connect4", op: opConnect, kind: ebpf.CGroupSockAddr, attach: ebpf.AttachCGroupInet4Connect},
	{name: "sockops", op: opConnect, kind: ebpf.SockOps, attach: ebpf.AttachCGroupSockOps},
	{name: "setsockopt", op: opSet, kind: ebpf.CGroupSockopt, attach: ebpf.AttachCGroupSetsockopt},
	{name: "getsockopt", op: opGet, kind: ebpf.CGroupSockopt, attach: ebpf.AttachCGroupGetsockopt},
	{name: "sendmsg4", op: opSend, kind: ebpf.CGroupSockAddr, attach: ebpf.AttachCGroupUDP4Sendmsg},
	{name: "recvmsg4", op: opSend, kind: ebpf.CGroupSockAddr, attach: ebpf.AttachCGroupUDP4Recvmsg},
}

// hooks measures how long the programs themselves run. It has a phase of its
// own because the kernel's measuring slows them down.
func (s *scene) hooks(ctx context.Context, calls int) (times []hookTime, err error) {
	e, err := engine.Open(engine.Options{Scope: s.scope()})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	f, err := s.makeFlows(e)
	if err != nil {
		return nil, err
	}
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return nil, fmt.Errorf("enable run-time statistics: %w", err)
	}
	defer stats.Close()
	hooks, err := openHooks(s.scope())
	defer closeHooks(hooks)
	if err != nil {
		return nil, err
	}
	for _, phase := range append(s.phases(f), phase{s.packetPolicy(), s.sends()}) {
		if err := e.Apply(phase.policy); err != nil {
			return nil, err
		}
		for _, v := range phase.variants {
			more, err := medianTimes(ctx, hooks, v, calls)
			if err != nil {
				return nil, fmt.Errorf("measure the hooks for %s: %w", v.name, err)
			}
			times = append(times, more...)
		}
	}
	return times, nil
}

// openHooks finds the programs that are attached to the cgroup at dir. What
// it has opened is the caller's, also when it fails.
func openHooks(dir string) (hooks []hook, err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("find the hooks: %w", err)
	}
	defer d.Close()
	for _, h := range measuredHooks {
		found, err := link.QueryPrograms(link.QueryOptions{Target: int(d.Fd()), Attach: h.attach})
		if err != nil {
			return hooks, fmt.Errorf("find the hook %s: %w", h.name, err)
		}
		if n := len(found.Programs); n != 1 {
			return hooks, fmt.Errorf("find the hook %s: %d programs in our own scope, want 1", h.name, n)
		}
		if h.program, err = ebpf.NewProgramFromID(found.Programs[0].ID); err != nil {
			return hooks, fmt.Errorf("open the hook %s: %w", h.name, err)
		}
		hooks = append(hooks, h)
	}
	return hooks, nil
}

func closeHooks(hooks []hook) {
	for _, h := range hooks {
		h.program.Close()
	}
}

// medianTimes measures a variant several times.
func medianTimes(ctx context.Context, hooks []hook, v variant, calls int) ([]hookTime, error) {
	turns := make(map[string][]hookTime)
	for range hookTurns {
		times, err := timesOf(ctx, hooks, v, calls)
		if err != nil {
			return nil, err
		}
		for _, t := range times {
			turns[t.Hook] = append(turns[t.Hook], t)
		}
	}
	var medians []hookTime
	for _, h := range hooks {
		if times := turns[h.name]; len(times) > 0 {
			slices.SortFunc(times, func(a, b hookTime) int { return cmp.Compare(a.PerCall, b.PerCall) })
			medians = append(medians, times[len(times)/2])
		}
	}
	return medians, nil
}

// timesOf makes the calls of one variant and returns what its hooks took;
// nothing for a variant that runs none.
func timesOf(ctx context.Context, hooks []hook, v variant, calls int) ([]hookTime, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	before, err := readStats(hooks)
	if err != nil {
		return nil, err
	}
	if _, err := v.run(calls); err != nil {
		return nil, err
	}
	time.Sleep(settle)
	after, err := readStats(hooks)
	if err != nil {
		return nil, err
	}
	var times []hookTime
	made := float64(calls + warmUp)
	for i, h := range hooks {
		runs := float64(after[i].RunCount - before[i].RunCount)
		if h.op != v.order.Op || runs == 0 {
			continue
		}
		took := nanoseconds(after[i].Runtime - before[i].Runtime)
		times = append(times, hookTime{v.section, v.name, h.name, runs / made, took / runs, took / made})
	}
	return times, nil
}

func readStats(hooks []hook) ([]*ebpf.ProgramStats, error) {
	var all []*ebpf.ProgramStats
	for _, h := range hooks {
		stats, err := h.program.Stats()
		if err != nil {
			return nil, fmt.Errorf("read statistics of the hook %s: %w", h.name, err)
		}
		all = append(all, stats)
	}
	return all, nil
}
