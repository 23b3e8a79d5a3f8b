//go:build linux

package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/waybill-net/waybill/internal/cgroup"
	"github.com/waybill-net/waybill/internal/engine"
)

// trace says where a daemon leaves what outlives it, so that it can be taken
// away without one.
type trace struct {
	PID    int    `json:"pid"`
	State  string `json:"state"`
	Cgroup string `json:"cgroup"`
	Scope  string `json:"scope"`
}

func tracePath(runDir string) string { return filepath.Join(runDir, "daemon.json") }

// checkTrace refuses to leave the proxies of an earlier daemon behind, which
// had another cgroup for them: they hold their ports.
func (d *Daemon) checkTrace() error {
	old := loadTrace(&d.opts).Cgroup
	if old == d.opts.Cgroup {
		return nil
	}
	left, err := cgroup.Processes(filepath.Join(old, "proxies"))
	if err != nil || len(left) == 0 {
		return err
	}
	return fmt.Errorf("begin in cgroup %s: %d processes of proxies that an earlier daemon started are in %s; give that one as --cgroup, or end them with waybill off", d.opts.Cgroup, len(left), old)
}

// saveTrace comes before everything that it tells of.
func (d *Daemon) saveTrace() error {
	raw, err := json.Marshal(trace{PID: os.Getpid(), State: d.opts.State, Cgroup: d.opts.Cgroup, Scope: d.opts.Scope})
	if err != nil {
		return err
	}
	return writeFile(tracePath(d.opts.RunDir), raw)
}

// loadTrace falls back on the options: one that can not be read must not keep
// anybody from taking the rest away.
func loadTrace(opts *Options) trace {
	var t trace
	raw, err := os.ReadFile(tracePath(opts.RunDir))
	if err != nil || json.Unmarshal(raw, &t) != nil {
		return trace{State: opts.State, Cgroup: opts.Cgroup, Scope: opts.Scope}
	}
	return t
}

// lockRunDir keeps other daemons, and off, away from what this one uses.
func lockRunDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, engine.ErrInUse)
	}
	return f, nil
}

// unlock does so before it closes: a process that is just being started has a
// copy of every descriptor until it executes its program.
func unlock(f *os.File) error {
	return errors.Join(syscall.Flock(int(f.Fd()), syscall.LOCK_UN), f.Close())
}

// removeRunFiles removes what daemons keep in their run directory, and the
// directory if nothing else is in it.
func removeRunFiles(dir string) (removed bool) {
	for _, pattern := range []string{"daemon.json*", "policy.json*", "names.json*", "proxy-*.json*", "run-*.json*", "waybill.sock*", "names.sock*", "lock"} {
		paths, _ := filepath.Glob(filepath.Join(dir, pattern)) // fails only for a malformed pattern
		for _, path := range paths {
			removed = os.Remove(path) == nil || removed
		}
	}
	os.Remove(dir)
	return removed
}

// Removed says what Off has taken away.
type Removed struct {
	State   string `json:"state,omitempty"`  // directory of the pins; empty: there were none
	Cgroup  string `json:"cgroup,omitempty"` // directory of the cgroups; empty: there were none
	Proxies int    `json:"proxies"`          // processes of proxies that were killed
	Files   string `json:"files,omitempty"`  // directory of the socket and the like; empty: there was none
	Left    int    `json:"left,omitempty"`   // programs of runs that go on in cgroups of ours
}

// RunningError says that a daemon keeps what Off is to take away.
type RunningError struct{ PID int }

func (e *RunningError) Error() string {
	return fmt.Sprintf("take waybill away: the daemon runs, as process %d", e.PID)
}

// Off takes away everything that daemons with these options have put into the
// kernel and started: programs, pins, proxies, cgroups. The recorded flows and
// the policy file stay. The error is a *RunningError if a daemon runs.
func Off(opts Options) (*Removed, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	t := loadTrace(&opts)
	if _, err := os.Stat(opts.RunDir); err == nil {
		lock, err := lockRunDir(opts.RunDir)
		if errors.Is(err, engine.ErrInUse) {
			return new(Removed), &RunningError{t.PID}
		}
		if err != nil {
			return new(Removed), err
		}
		defer unlock(lock)
	}
	done := new(Removed)
	switch err := engine.Remove(t.State); {
	case err == nil:
		done.State = t.State
	case errors.Is(err, engine.ErrInUse):
		return done, &RunningError{t.PID}
	case !errors.Is(err, engine.ErrNoState):
		return done, err
	}
	if err := done.removeCgroups(t); err != nil {
		return done, err
	}
	if removeRunFiles(opts.RunDir) {
		done.Files = opts.RunDir
	}
	return done, nil
}

// removeCgroups takes away the cgroups that a daemon made, and the one above
// them unless others use it too. The programs of runs are their users': they
// go on, in the scope if it can hold them and else where they are.
func (r *Removed) removeCgroups(t trace) error {
	proxies, runs := filepath.Join(t.Cgroup, "proxies"), filepath.Join(t.Cgroup, "runs")
	pids, err := cgroup.Processes(runs)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		cgroup.Move(t.Scope, pid) // an error means that it has ended, or that it stays
	}
	if pids, err = cgroup.Processes(proxies); err != nil {
		return err
	}
	if _, err := os.Stat(proxies); err == nil {
		if err := cgroup.Remove(proxies); err != nil {
			return fmt.Errorf("take waybill away: %w", err)
		}
		r.Cgroup = t.Cgroup
	}
	r.Proxies = len(pids)
	entries, _ := os.ReadDir(runs) // none is no error
	for _, entry := range entries {
		if entry.IsDir() {
			os.Remove(filepath.Join(runs, entry.Name())) // an error means that a program is left in it
		}
	}
	os.Remove(runs)
	if left, err := cgroup.Processes(runs); err == nil {
		r.Left = len(left)
	}
	os.Remove(t.Cgroup) // an error means that it is not ours alone
	return nil
}
