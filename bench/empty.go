//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// closers closes all, in order.
type closers []io.Closer

func (c closers) Close() error {
	var errs []error
	for _, one := range c {
		errs = append(errs, one.Close())
	}
	return errors.Join(errs...)
}

// elsewhere measures connections that no hook sees, with hooks on another
// cgroup and without. The first program that is attached to any cgroup turns
// on a piece of the kernel that every connection on the machine then runs;
// both sides of the other comparisons have that.
func (s *scene) elsewhere(ctx context.Context, r results, round, calls int) error {
	for i := range turnsPerRound {
		turn := round*turnsPerRound + i
		for _, attach := range rand.Perm(2) {
			if err := s.bareTurn(ctx, r, turn, calls/turnsPerRound, attach == 1); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *scene) bareTurn(ctx context.Context, r results, turn, calls int, attach bool) (err error) {
	name := nameBare
	if attach {
		name = nameElsewhere
		empty, aerr := attachEmpty(s.emptyScope())
		if aerr != nil {
			return aerr
		}
		defer func() { err = errors.Join(err, empty.Close()) }()
	}
	time.Sleep(settle) // the kernel has patched its own code
	v := connectTo(name, s.direct, local(s.originPort))
	v.section = sectionElsewhere
	return r.turn(ctx, []variant{v}, turn, calls)
}

// attachEmpty attaches programs that do nothing to the cgroup at dir, at the
// hooks that are measured: what these cost, no program of ours can save.
func attachEmpty(dir string) (attached closers, err error) {
	for _, h := range measuredHooks {
		l, err := attachEmptyHook(dir, h)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("attach an empty %s to %s: %w", h.name, dir, err), attached.Close())
		}
		attached = append(attached, l)
	}
	return attached, nil
}

func attachEmptyHook(dir string, h hook) (link.Link, error) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         "bench_empty",
		Type:         h.kind,
		AttachType:   h.attach,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
		License:      "MIT",
	})
	if err != nil {
		return nil, err
	}
	defer program.Close() // the link holds it
	return link.AttachCgroup(link.CgroupOptions{Path: dir, Attach: h.attach, Program: program})
}
