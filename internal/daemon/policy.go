//go:build linux

package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/waybill-net/waybill/internal/cgroup"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/policyfile"
)

// applied is a policy in force, from its text to what the kernel got.
type applied struct {
	Name string    `json:"name"` // of the file
	Text []byte    `json:"text"`
	Time time.Time `json:"time"`

	file      *policyfile.File
	effective policy.Policy // with cgroups filled in, and the runs
}

func (a *applied) warnings() []policyfile.Problem {
	if a.file == nil {
		return nil
	}
	return a.file.Warnings
}

// ApplyPolicy puts a policy in force. On an error, such as a
// *policyfile.Error, the old one stays.
func (d *Daemon) ApplyPolicy(name string, text []byte) (*policyfile.File, error) {
	file, err := d.parse(name, text)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	next := applied{Name: name, Text: text, Time: time.Now(), file: file}
	if err := d.put(next); err != nil {
		return nil, err
	}
	d.log.Info("policy is in force", "name", name, "providers", len(file.Policy.Providers), "filters", len(file.Policy.Filters))
	for _, w := range file.Warnings {
		d.log.Warn("policy: "+w.Message, "file", w.File, "line", w.Line, "hint", w.Hint)
	}
	return file, nil
}

func (d *Daemon) parse(name string, text []byte) (*policyfile.File, error) {
	root, err := cgroup.Root()
	if err != nil {
		return nil, err
	}
	return policyfile.Parse(name, text, policyfile.Options{CgroupRoot: root})
}

// put starts the proxies that the policy wants started, applies it, and stops
// those that it no longer wants. The caller holds d.mu.
func (d *Daemon) put(next applied) error {
	undo, err := d.startProxies(next.file.Policy)
	if err != nil {
		return err
	}
	next.effective = d.effective(next.file.Policy)
	if err := d.engine.Apply(next.effective); err != nil {
		return errors.Join(err, undo())
	}
	d.noteApplied(next)
	// It is in force whatever happens now.
	if err := errors.Join(d.stopUnwanted(next.file.Policy), d.save(next)); err != nil {
		d.log.Error("after a change of policy", "error", err)
	}
	return nil
}

// reapply applies the policy in force once more, with the runs and units of
// this moment. The caller holds d.mu.
func (d *Daemon) reapply() error {
	next := d.applied
	if next.file == nil {
		// It is in the kernel alone. What is applied here would take its place.
		return errors.New("the text of the policy in force is not known; apply one first")
	}
	next.effective = d.effective(next.file.Policy)
	if err := d.engine.Apply(next.effective); err != nil {
		return err
	}
	d.noteApplied(next)
	return nil
}

// noteApplied tells those who have to know what is in force now. The caller
// holds d.mu.
func (d *Daemon) noteApplied(next applied) {
	d.applied = next
	var dirs []string
	for _, p := range next.effective.Providers {
		dirs = append(dirs, p.Cgroup)
	}
	d.proxyDirs.Store(&dirs)
	d.watcher.Changed()
}

// effective is the policy with the places of processes filled in, and with
// what the runs at this moment ask for. The caller holds d.mu.
func (d *Daemon) effective(p policy.Policy) policy.Policy {
	p.Providers, p.Filters = slices.Clone(p.Providers), slices.Clone(p.Filters)
	for i := range p.Providers {
		provider := &p.Providers[i]
		switch {
		case provider.Unit != "":
			provider.Cgroup = d.units.cgroup(d.opts.Scope, provider.Unit)
		case len(provider.Exec) > 0:
			provider.Cgroup = d.proxyCgroup(provider.Name)
		}
	}
	for _, run := range d.runs {
		p.Filters = append(p.Filters, run.filters(p)...)
	}
	return p
}

// followUnits applies the policy anew if a unit's processes are elsewhere now.
// The caller holds d.mu.
func (d *Daemon) followUnits() (bool, error) {
	if d.applied.file == nil || reflect.DeepEqual(d.effective(d.applied.file.Policy).Providers, d.applied.effective.Providers) {
		return false, nil
	}
	return true, d.reapply()
}

// ReloadPolicy reads the policy file again. Without one there is no policy.
func (d *Daemon) ReloadPolicy() error {
	text, err := os.ReadFile(d.opts.Policy)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = []byte("version: 1\n"), nil
		d.log.Info("no policy file: nothing is redirected", "path", d.opts.Policy)
	}
	if err != nil {
		return err
	}
	_, err = d.ApplyPolicy(d.opts.Policy, text)
	return err
}

// restorePolicy puts the policy in force again that an earlier daemon had put
// in force since the host has booted, or else that of the file. What is
// adopted stays in force if the policy can not be read.
func (d *Daemon) restorePolicy() error {
	saved, err := d.loadSaved()
	switch {
	case err == nil && d.engine.Adopted():
		_, err = d.ApplyPolicy(saved.Name, saved.Text)
	default:
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.log.Error("the policy that was in force can not be read; taking the policy file", "error", err)
		}
		err = d.ReloadPolicy()
	}
	if err != nil && d.engine.Adopted() {
		d.log.Error("the policy that was in force stays in force, in the kernel alone", "error", err)
		return nil
	}
	return err
}

func (d *Daemon) savedPath() string { return filepath.Join(d.opts.RunDir, "policy.json") }

// save keeps the text of the policy in force for the next daemon, as long as
// the kernel keeps the policy: until the host goes down.
func (d *Daemon) save(a applied) error {
	raw, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return writeFile(d.savedPath(), raw)
}

func (d *Daemon) loadSaved() (applied, error) {
	var a applied
	raw, err := os.ReadFile(d.savedPath())
	if err == nil {
		err = json.Unmarshal(raw, &a)
	}
	if err != nil {
		return a, fmt.Errorf("read the policy in force: %w", err)
	}
	return a, nil
}

// writeFile replaces a file whole.
func writeFile(path string, raw []byte) error {
	next := path + ".new"
	if err := os.WriteFile(next, raw, 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}
