//go:build linux

package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/waybill-net/waybill/internal/cgroup"
)

// State of a program, to be shown to people.
type State struct {
	Running  bool
	PID      int       // of the running program
	Since    time.Time // it runs, or it does not run
	Restarts int
	LastExit string // "exit status 1", "signal: killed", or why it can not be started again; empty: it never ended
}

// Process is a program that is kept running.
type Process struct {
	command Command
	tail    tail
	stop    chan struct{} // closed when nobody wants it to run any more
	done    chan struct{} // closed when it has ended for good

	mu       sync.Mutex
	stopping bool
	left     bool // what becomes of it is another's business
	state    State
	signal   func(syscall.Signal) error // to the running program
}

// Start starts a program and keeps it running until Stop: when it ends, it is
// started again, after 1 second at first and up to 30 if it keeps ending. If
// it can not be started the first time, that is an error.
func Start(c Command) (*Process, error) {
	p, err := newProcess(c)
	if err != nil {
		return nil, err
	}
	wait, err := p.launch()
	if err != nil {
		return nil, err
	}
	go p.keepRunning(wait)
	return p, nil
}

func newProcess(c Command) (*Process, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return &Process{command: c, stop: make(chan struct{}), done: make(chan struct{})}, nil
}

var errStopped = errors.New("nobody wants it to run any more")

// launch starts the program once and returns how to wait for its end.
func (p *Process) launch() (wait func() string, err error) {
	output, copied, err := p.openOutput()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.command.Name, err)
	}
	if output != p.command.Log {
		defer output.Close() // the program has its own
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopping {
		return nil, errStopped
	}
	cmd, err := p.command.start(output)
	if err != nil {
		return nil, err
	}
	p.running(cmd.Process.Pid, func(s syscall.Signal) error { return cmd.Process.Signal(s) })
	return func() string {
		cmd.Wait()
		p.killRest() // if that fails, the next start fails for want of the port, and says so
		<-copied
		return cmd.ProcessState.String()
	}, nil
}

// openOutput returns what the program prints to, and a channel that is closed
// when all it printed has been read.
func (p *Process) openOutput() (*os.File, <-chan struct{}, error) {
	copied := make(chan struct{})
	if p.command.Log != nil {
		close(copied)
		return p.command.Log, copied, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	if u := p.command.User; u != nil {
		// So that the program can open /dev/stdout, as some do for their log.
		if err := w.Chown(int(u.UID), int(u.GID)); err != nil {
			return nil, nil, errors.Join(err, r.Close(), w.Close())
		}
	}
	go func() {
		defer close(copied)
		defer r.Close()
		p.tail.copyLines(r, p.command.Name+" | ", p.command.Output)
	}()
	return w, copied, nil
}

// running notes a start. The caller holds mu.
func (p *Process) running(pid int, signal func(syscall.Signal) error) {
	if p.state.LastExit != "" {
		p.state.Restarts++
	}
	p.state.Running, p.state.PID, p.state.Since = true, pid, time.Now()
	p.signal = signal
}

// keepRunning waits for each end and starts the program again, until Stop.
func (p *Process) keepRunning(wait func() string) {
	defer close(p.done)
	var b backoff
	for {
		exit := wait()
		ran := p.ended(exit)
		for wait = nil; wait == nil; {
			delay := b.next(ran)
			if !p.pause(exit, delay) {
				return
			}
			var err error
			wait, err = p.launch()
			if errors.Is(err, errStopped) {
				return
			}
			if err != nil {
				exit, ran = err.Error(), 0
				p.ended(exit)
			}
		}
	}
}

// ended notes an end and returns how long the program ran.
func (p *Process) ended(exit string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	ran := now.Sub(p.state.Since)
	p.state.Running, p.state.PID, p.state.Since, p.state.LastExit = false, 0, now, exit
	p.signal = nil
	return ran
}

// pause waits before the next start and reports whether there is to be one.
func (p *Process) pause(exit string, d time.Duration) bool {
	select {
	case <-p.stop:
		return false
	default:
	}
	if p.command.OnExit != nil {
		p.command.OnExit(exit, d)
	}
	select {
	case <-p.stop:
		return false
	case <-time.After(d):
		return true
	}
}

// Leave lets the program run on without this process: another one adopts it,
// or nobody.
func (p *Process) Leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left = true
	if !p.stopping {
		p.stopping = true
		close(p.stop)
	}
}

// killRest kills what a program that has ended has left in its cgroup.
func (p *Process) killRest() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left {
		return nil
	}
	return cgroup.Empty(p.command.Cgroup)
}

// State returns how the program fares.
func (p *Process) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// Tail returns the last lines that the program printed.
func (p *Process) Tail() []string {
	if p.command.Log != nil {
		return readTail(p.command.Log)
	}
	return p.tail.last()
}

// Stop ends the program for good: with SIGTERM, and when ctx ends with
// SIGKILL, which also goes to what is left in its cgroup. It may be called
// more than once.
func (p *Process) Stop(ctx context.Context) error {
	p.mu.Lock()
	if !p.stopping {
		p.stopping = true
		close(p.stop)
	}
	signal := p.signal
	p.mu.Unlock()
	if signal != nil {
		signal(syscall.SIGTERM) // an error means that it has just ended
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
	}
	if err := cgroup.Empty(p.command.Cgroup); err != nil {
		return err
	}
	<-p.done
	return nil
}
