//go:build linux

package run

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// SignalError says that a signal ended the run before the command started.
type SignalError struct{ Signal syscall.Signal }

func (e *SignalError) Error() string { return fmt.Sprintf("interrupted: %v", e.Signal) }

// signals receives this process's signals: at first they end the run, and
// once the command has started they are the command's.
type signals struct {
	caught chan os.Signal
	ended  sync.WaitGroup

	mu      sync.Mutex
	cancel  context.CancelCauseFunc
	app     *os.Process
	waiting []syscall.Signal // caught before the command started
}

// catchSignals begins to receive. The context that it returns ends with the
// first signal that means an end.
func catchSignals(ctx context.Context) (*signals, context.Context) {
	s := &signals{caught: make(chan os.Signal, 16)}
	ctx, s.cancel = context.WithCancelCause(ctx)
	for _, sig := range []os.Signal{
		syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH,
	} {
		// Ignored since before us, as by nohup: the command ignores it too.
		if !signal.Ignored(sig) {
			signal.Notify(s.caught, sig)
		}
	}
	s.ended.Go(func() {
		for sig := range s.caught {
			s.handle(sig.(syscall.Signal))
		}
	})
	return s, ctx
}

// passTo makes a process the receiver of all further signals.
func (s *signals) passTo(app *os.Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.app = app
	for _, sig := range s.waiting {
		app.Signal(sig) // it came while the command was being started
	}
}

func (s *signals) handle(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.app == nil:
		if sig != syscall.SIGWINCH {
			s.waiting = append(s.waiting, sig)
			s.cancel(&SignalError{sig})
		}
	case fromTerminal(sig):
		// The command is in our process group and has it already.
	default:
		s.app.Signal(sig) // an error means that it has just ended
	}
}

// fromTerminal reports whether a signal can have come from a key: then the
// whole foreground process group has it, and to pass it on would send it
// twice. A signal does not tell a Go program who sent it; one that somebody
// sends to this process alone, by hand, while it is in the foreground, is
// taken for the terminal's.
func fromTerminal(sig syscall.Signal) bool {
	if sig != syscall.SIGINT && sig != syscall.SIGQUIT && sig != syscall.SIGWINCH {
		return false
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDONLY|syscall.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer tty.Close()
	foreground, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && foreground == unix.Getpgrp()
}

// release gives the signals back.
func (s *signals) release() {
	signal.Stop(s.caught)
	close(s.caught)
	s.ended.Wait()
	s.cancel(nil)
}
