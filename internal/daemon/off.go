package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

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

// saveTrace comes before everything that it tells of.
func (d *Daemon) saveTrace() error {
	raw, err := json.Marshal(trace{PID: os.Getpid(), State: d.opts.State, Cgroup: d.opts.Cgroup, Scope: d.opts.Scope})
	if err != nil {
		return err
	}
	return writeFile(tracePath(d.opts.RunDir), raw)
}

func loadTrace(opts *Options) (trace, error) {
	t := trace{State: opts.State, Cgroup: opts.Cgroup, Scope: opts.Scope}
	raw, err := os.ReadFile(tracePath(opts.RunDir))
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &t)
	}
	return t, err
}

// Removed says what Off has taken away.
type Removed struct {
	State   string `json:"state,omitempty"`  // directory of the pins; empty: there were none
	Cgroup  string `json:"cgroup,omitempty"` // directory of the cgroups; empty: there were none
	Proxies int    `json:"proxies"`          // processes of proxies that were killed
	Files   string `json:"files,omitempty"`  // directory of the socket and the like; empty: there was none
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
	t, err := loadTrace(&opts)
	if err != nil {
		return nil, err
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
	if _, err := os.Stat(opts.RunDir); err == nil {
		if err := os.RemoveAll(opts.RunDir); err != nil {
			return done, err
		}
		done.Files = opts.RunDir
	}
	return done, nil
}

// removeCgroups takes away the cgroups that a daemon made, and the one above
// them unless others use it too. The programs of runs are their users': they
// go on, in the scope.
func (r *Removed) removeCgroups(t trace) error {
	proxies, runs := filepath.Join(t.Cgroup, "proxies"), filepath.Join(t.Cgroup, "runs")
	pids, err := cgroup.Processes(runs)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		cgroup.Move(t.Scope, pid) // an error means that it has ended
	}
	if pids, err = cgroup.Processes(proxies); err != nil {
		return err
	}
	for _, dir := range []string{proxies, runs} {
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		if err := cgroup.Remove(dir); err != nil {
			return fmt.Errorf("take waybill away: %w", err)
		}
		r.Cgroup = t.Cgroup
	}
	r.Proxies = len(pids)
	os.Remove(t.Cgroup) // an error means that it is not ours alone
	return nil
}
