//go:build linux

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/waybill-net/waybill/internal/cgroup"
	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/policy"
)

// activeRun is a program that goes through providers of its own choice. It is
// kept in a file beside the policy: the next daemon goes on with it.
type activeRun struct {
	ID     string   `json:"id"`
	Cgroup string   `json:"cgroup"`
	Via    []string `json:"via"`

	attended bool // its client is connected
}

// filters send the run's connections to its providers. They are the lightest
// of each: where a filter of the policy matches too, its context counts.
func (r *activeRun) filters(p policy.Policy) []policy.Filter {
	var filters []policy.Filter
	for _, name := range r.Via {
		if hasProvider(p, name) {
			filters = append(filters, policy.Filter{
				Name: "run-" + r.ID, Provider: name, Weight: math.MinInt32, OriginalCgroups: []string{r.Cgroup},
			})
		}
	}
	return filters
}

func hasProvider(p policy.Policy, name string) bool {
	return slices.ContainsFunc(p.Providers, func(p policy.Provider) bool { return p.Name == name })
}

func (d *Daemon) runsDir() string { return filepath.Join(d.opts.Cgroup, "runs") }

func (d *Daemon) runPath(id string) string { return filepath.Join(d.opts.RunDir, "run-"+id+".json") }

// Run implements [control.Backend].
func (d *Daemon) Run(_ context.Context, peer *control.Peer, r control.RunRequest) (*control.RunResult, io.Closer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	// Who connected may have ended long ago, and its number be another's; and 0,
	// for one that can not be seen from here, would mean ourselves.
	if err := peer.Check(); err != nil {
		return nil, nil, err
	}
	if d.applied.file == nil {
		return nil, nil, errors.New("begin a run: the text of the policy in force is not known; apply one first")
	}
	if err := checkVia(r.Via); err != nil {
		return nil, nil, err
	}
	for _, name := range r.Via {
		if !hasProvider(d.applied.effective, name) {
			return nil, nil, &control.Error{
				Status:  http.StatusNotFound,
				Message: fmt.Sprintf("no provider %q in the policy in force", name),
				Hint:    "waybill providers lists them",
			}
		}
	}
	run := &activeRun{ID: d.newRunID(peer.PID), Via: r.Via, attended: true}
	run.Cgroup = filepath.Join(d.runsDir(), run.ID)
	if err := os.MkdirAll(run.Cgroup, 0o755); err != nil {
		return nil, nil, fmt.Errorf("create cgroup: %w", err)
	}
	err := d.begin(run)
	if err == nil {
		// First the policy, then the process: none of its connections is missed.
		err = moveTo(run.Cgroup, peer)
	}
	if err != nil {
		return nil, nil, errors.Join(err, d.end(run))
	}
	d.log.Info("began a run", "run", run.ID, "pid", peer.PID, "uid", peer.UID, "via", run.Via)
	return &control.RunResult{Cgroup: run.Cgroup, Via: run.Via}, closer(func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if work := d.work.Load(); work != nil && (*work).Err() != nil {
			run.attended = false
			return nil // it is we who end: the next daemon goes on with it
		}
		d.log.Info("ended a run", "run", run.ID)
		return d.end(run)
	}), nil
}

func checkVia(via []string) error {
	seen := make(map[string]bool)
	for _, name := range via {
		if seen[name] {
			return &control.Error{Status: http.StatusBadRequest, Message: fmt.Sprintf("provider %q is there twice", name), Hint: "a flow passes each provider once"}
		}
		seen[name] = true
	}
	return nil
}

// moveTo moves the peer's process, and brings back one that turns out to be
// another.
func moveTo(dir string, peer *control.Peer) error {
	before, err := cgroup.Of(peer.PID)
	if err != nil {
		return err
	}
	if err := cgroup.Move(dir, peer.PID); err != nil {
		return err
	}
	if err := peer.Check(); err != nil {
		return errors.Join(err, cgroup.Move(before, peer.PID))
	}
	return nil
}

type closer func() error

func (c closer) Close() error { return c() }

// newRunID names a run by its process. The caller holds d.mu.
func (d *Daemon) newRunID(pid int) string {
	id := strconv.Itoa(pid)
	for n := 2; ; n++ {
		_, err := os.Stat(filepath.Join(d.runsDir(), id))
		if _, taken := d.runs[id]; !taken && err != nil {
			return id
		}
		id = fmt.Sprintf("%d-%d", pid, n)
	}
}

func (d *Daemon) begin(run *activeRun) error {
	raw, err := json.Marshal(run)
	if err != nil {
		return err
	}
	if err := writeFile(d.runPath(run.ID), raw); err != nil {
		return err
	}
	d.runs[run.ID] = run
	return d.reapply()
}

// end forgets a run. What is left in its cgroup goes on as it is; the cgroup
// goes when it is empty. The caller holds d.mu.
func (d *Daemon) end(run *activeRun) error {
	delete(d.runs, run.ID)
	os.Remove(d.runPath(run.ID)) // an error means that it was never written
	os.Remove(run.Cgroup)        // an error means that something still runs in it
	if d.applied.file == nil {
		return nil // its filters stay with the policy that is in the kernel alone
	}
	return d.reapply()
}

// restoreRuns goes on with the runs of an earlier daemon that have not ended.
func (d *Daemon) restoreRuns() {
	saved, _ := filepath.Glob(d.runPath("*")) // fails only for a malformed pattern
	for _, path := range saved {
		var run activeRun
		raw, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(raw, &run)
		}
		if err != nil {
			d.log.Warn("forgot a run", "path", path, "error", err)
			os.Remove(path)
			continue
		}
		d.runs[run.ID] = &run
	}
}

// clearRuns ends the restored runs in which nothing runs any more, and removes
// the cgroups that are empty by now. The caller holds d.mu.
func (d *Daemon) clearRuns() error {
	var errs []error
	for _, run := range d.runs {
		if pids, err := cgroup.Processes(run.Cgroup); !run.attended && err == nil && len(pids) == 0 {
			errs = append(errs, d.end(run))
		}
	}
	left, _ := os.ReadDir(d.runsDir()) // none is no error
	for _, entry := range left {
		if _, active := d.runs[entry.Name()]; !active && entry.IsDir() {
			os.Remove(filepath.Join(d.runsDir(), entry.Name()))
		}
	}
	return errors.Join(errs...)
}
