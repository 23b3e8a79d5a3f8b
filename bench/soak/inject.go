//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/waybill-net/waybill/internal/control"
)

// injected is a fault that was caused.
type injected struct {
	fault
	From     time.Time      `json:"from"`
	To       time.Time      `json:"to"`
	Note     string         `json:"note,omitempty"`
	Error    string         `json:"error,omitempty"` // why it could not be caused
	Failures map[string]int `json:"failures"`        // that it explains
	Examples []failure      `json:"examples"`
	Last     time.Duration  `json:"last_failure"` // after To
}

// injector breaks things.
type injector struct {
	scene  *scene
	daemon *daemon
	log    io.Writer
	start  time.Time
	done   []injected
}

// run causes one fault after the other, until the plan or ctx ends.
func (in *injector) run(ctx context.Context, plan []fault) {
	for _, f := range plan {
		wait := max(minGap, time.Until(in.start.Add(f.At)))
		if sleep(ctx, wait) != nil {
			return
		}
		done := injected{fault: f, From: time.Now(), Failures: map[string]int{}}
		// What was begun is taken to its end, only sooner.
		note, err := in.inject(ctx, f)
		done.To, done.Note = time.Now(), note
		if err != nil {
			done.Error = err.Error()
		}
		in.done = append(in.done, done)
		fmt.Fprintf(in.log, "%7s  %-12s %-7s %s%s\n", seconds(done.From.Sub(in.start)), f.Kind, f.Target, note, done.Error)
	}
}

// sleep returns early, with an error, when ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

func (in *injector) inject(ctx context.Context, f fault) (note string, err error) {
	pid := 0
	if f.Target != "" {
		if pid = in.waitRunning(ctx, f.Target); pid == 0 {
			return "it did not run", nil
		}
	}
	switch f.Kind {
	case killProxy:
		return "", killAndWait(pid)
	case stopProxy:
		return "", in.stopProxy(ctx, f, pid)
	case killDaemon:
		in.daemon.end(syscall.SIGKILL)
		sleep(ctx, f.For)
		return "", in.daemon.start()
	case reload:
		return in.reload(f)
	case fillFlight:
		return in.fillFlight(ctx, f)
	case starveFiles:
		return in.starveFiles(ctx, f, pid)
	case starveProxy:
		return in.starveProxy(ctx, f, pid)
	case starveState:
		return in.starveState(ctx, f)
	}
	return "", fmt.Errorf("cause %q: no such fault", f.Kind)
}

// waitRunning waits some time for a proxy that has been killed before.
func (in *injector) waitRunning(ctx context.Context, name string) (pid int) {
	for began := time.Now(); time.Since(began) < 5*time.Second; {
		if pid = in.scene.pid(name); pid != 0 || sleep(ctx, 50*time.Millisecond) != nil {
			break
		}
	}
	return pid
}

// killAndWait returns when the process has closed its sockets: it has done so
// when it is reported dead.
func killAndWait(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		return os.NewSyscallError("pidfd_send_signal", err)
	}
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(deadline.Milliseconds()))
	return os.NewSyscallError("poll", err)
}

func (in *injector) stopProxy(ctx context.Context, f fault, pid int) error {
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		return os.NewSyscallError("kill", err)
	}
	sleep(ctx, f.For)
	return os.NewSyscallError("kill", unix.Kill(pid, unix.SIGCONT))
}

func (in *injector) reload(f fault) (string, error) {
	ctx := context.Background()
	before, err := in.daemon.status(ctx)
	if err != nil {
		return "", err
	}
	if err := in.scene.writePolicy(f.Amount); err != nil {
		return "", err
	}
	if err := in.daemon.signal(syscall.SIGHUP); err != nil {
		return "", err
	}
	after, err := in.daemon.waitStatus(ctx, "the new policy", askTimeout, func(s *control.Status) bool {
		return s.Policy.Generation != before.Policy.Generation
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d filters, then %d", before.Policy.Filters, after.Policy.Filters), nil
}

// fillFlight parks connections in the in-flight map, up to its limit or close
// to it.
func (in *injector) fillFlight(ctx context.Context, f fault) (string, error) {
	const limit = 8192 // engine.Options.InFlight
	n := limit - 512 + f.Amount%1024
	parker, err := in.scene.startHelper("app", roleParker, fmt.Sprint(n))
	if err != nil {
		return "", err
	}
	sleep(ctx, f.For)
	maps, err := readMaps()
	return fmt.Sprintf("%d tried, %d in flight", n, maps.entries["inflight"]), errors.Join(err, parker.stop())
}

// starveFiles allows a proxy half of the descriptors that it has: it gets no
// new one before it has closed about as many.
func (in *injector) starveFiles(ctx context.Context, f fault, pid int) (string, error) {
	open, err := filesOf(pid)
	if err != nil {
		return "", err
	}
	var before unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &before); err != nil {
		return "", os.NewSyscallError("prlimit", err)
	}
	low := unix.Rlimit{Cur: uint64(max(open.sum()/2, fewFiles) + f.Amount%16), Max: before.Max}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &low, nil); err != nil {
		return "", os.NewSyscallError("prlimit", err)
	}
	sleep(ctx, f.For)
	err = unix.Prlimit(pid, unix.RLIMIT_NOFILE, &before, nil)
	return fmt.Sprintf("%d at most, it had %d", low.Cur, open.sum()), os.NewSyscallError("prlimit", err)
}

// fewFiles is what a proxy has that does nothing.
const fewFiles = 24

// starveProxy leaves a proxy some hundred kilobytes. The kernel kills it if it
// needs more than that.
func (in *injector) starveProxy(ctx context.Context, f fault, pid int) (string, error) {
	m := in.scene.memory
	if !m.available() {
		return noMemoryController, nil
	}
	more := 128<<10 + f.Amount
	if err := errors.Join(m.move(memoryStarved, pid), m.allow(memoryStarved, more)); err != nil {
		return "", err
	}
	sleep(ctx, f.For)
	err := m.allow(memoryStarved, -1)
	if in.scene.pid(f.Target) != pid {
		return fmt.Sprintf("%d KB more; it died", more>>10), err
	}
	return fmt.Sprintf("%d KB more", more>>10), errors.Join(err, m.move(memoryProxies, pid))
}

const noMemoryController = "not done: no memory controller of cgroup v1"

// starveState leaves the daemon, and the kernel for the records of sockets,
// some ten kilobytes. It does not kill them: who needs more waits, or in the
// kernel programs does without. Proxies are not meant.
func (in *injector) starveState(ctx context.Context, f fault) (note string, err error) {
	m := in.scene.memory
	if !m.available() {
		return noMemoryController, nil
	}
	more := f.Amount % (64 << 10)
	if err = m.allow(memoryState, more); err == nil {
		sleep(ctx, f.For)
	}
	refused, rerr := m.read(memoryState, "memory.failcnt")
	return fmt.Sprintf("%d KB more; %d refusals so far", more>>10, refused), errors.Join(err, rerr, m.allow(memoryState, -1))
}
