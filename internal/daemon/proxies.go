//go:build linux

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/waybill-net/waybill/internal/cgroup"
	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/supervise"
)

// proxy is a provider's proxy that the policy wants started.
type proxy struct {
	name    string
	spec    spec
	process *supervise.Process
}

// spec is what makes one proxy's process another's: when it changes, the
// proxy is started anew.
type spec struct {
	Exec []string
	User string
}

func specOf(p policy.Provider) spec { return spec{p.Exec, p.User} }

func (s spec) equal(t spec) bool { return s.User == t.User && slices.Equal(s.Exec, t.Exec) }

const (
	listenTimeout = 5 * time.Second // for a proxy to begin; later it is down until it does
	stopTimeout   = 5 * time.Second // for a proxy to end by itself
)

func (d *Daemon) proxyCgroup(name string) string {
	return filepath.Join(d.opts.Cgroup, "proxies", name)
}

// change is the start of a proxy, perhaps in the place of another.
type change struct {
	old *proxy // nil: none
	new *proxy
	supervise.Command
	provider policy.Provider
}

// startProxies starts what p wants started and does not run. On an error
// everything is as before. The caller holds d.mu.
func (d *Daemon) startProxies(p policy.Policy) (undo func() error, err error) {
	changes, err := d.changes(p)
	if err != nil {
		return nil, err
	}
	var done []change
	undo = func() error { return d.undo(done) }
	for _, c := range changes {
		done = append(done, c)
		// Of two processes with one cgroup and one port, the old one goes first.
		if c.old != nil {
			err = d.stopProxies([]*proxy{c.old})
		}
		if err == nil {
			err = d.startProxy(c.new, c.Command)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("provider %q: %w", c.Name, err), undo())
		}
	}
	d.awaitListening(changes)
	return undo, nil
}

// awaitListening gives proxies time to listen before the policy sends them
// connections, which would otherwise find them down.
func (d *Daemon) awaitListening(changes []change) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), listenTimeout, fmt.Errorf("not within %v", listenTimeout))
	defer cancel()
	for _, c := range changes {
		err := c.new.process.WaitListening(ctx, c.provider.Addresses(policy.TCP)...)
		if err == nil {
			err = c.new.process.WaitReceiving(ctx, c.provider.Addresses(policy.UDP)...)
		}
		if err != nil {
			reason, _, _ := strings.Cut(err.Error(), "; it printed") // it printed into the same log
			d.log.Warn("a proxy is down at the start", "provider", c.Name, "error", reason)
		}
	}
}

// changes lists what is to be started, and finds out what can be known before
// anything is stopped for it.
func (d *Daemon) changes(p policy.Policy) ([]change, error) {
	var changes []change
	for _, provider := range p.Providers {
		want := specOf(provider)
		old := d.proxies[provider.Name]
		if len(provider.Exec) == 0 || old != nil && old.spec.equal(want) {
			continue
		}
		c, err := d.command(provider.Name, want)
		if err != nil {
			return nil, fmt.Errorf("provider %q: %w", provider.Name, err)
		}
		changes = append(changes, change{old, &proxy{name: provider.Name, spec: want}, c, provider})
	}
	return changes, nil
}

// undo brings back what ran before.
func (d *Daemon) undo(done []change) error {
	var errs []error
	for _, c := range done {
		if c.new.process != nil {
			errs = append(errs, d.stopProxies([]*proxy{c.new}))
		}
		if c.old == nil {
			continue
		}
		again := &proxy{name: c.old.name, spec: c.old.spec}
		command, err := d.command(again.name, again.spec)
		if err == nil {
			err = d.startProxy(again, command)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// startProxy starts a proxy, or adopts the one that an earlier daemon started.
func (d *Daemon) startProxy(p *proxy, c supervise.Command) (err error) {
	if err := os.MkdirAll(c.Cgroup, 0o755); err != nil {
		return fmt.Errorf("create cgroup: %w", err)
	}
	if was, err := d.loadSpec(p.name); err == nil && was.equal(p.spec) {
		if p.process, err = supervise.Adopt(c); err == nil {
			d.log.Info("adopted a proxy", "provider", p.name, "pid", p.process.State().PID)
		}
	}
	if p.process == nil {
		if err := cgroup.Empty(c.Cgroup); err != nil {
			return err
		}
		if p.process, err = supervise.Start(c); err != nil {
			return err
		}
		d.log.Info("started a proxy", "provider", p.name, "pid", p.process.State().PID)
	}
	d.proxies[p.name] = p
	return d.saveSpec(p.name, p.spec)
}

func (d *Daemon) command(name string, want spec) (supervise.Command, error) {
	path, err := exec.LookPath(want.Exec[0])
	if err != nil {
		return supervise.Command{}, err
	}
	c := supervise.Command{
		Name: name, Path: path, Arg0: want.Exec[0], Args: want.Exec[1:], Cgroup: d.proxyCgroup(name), Dir: "/",
		Log: os.Stderr, // the journal's, so that it outlives us
		OnExit: func(exit string, wait time.Duration) {
			d.log.Warn("a proxy ended", "provider", name, "exit", exit, "restart_in", wait)
		},
	}
	c.Env = os.Environ()
	if want.User != "" {
		if c.User, err = supervise.LookupUser(want.User); err != nil {
			return c, err
		}
		c.Env = c.User.Environ(c.Env)
	}
	c.Env = append(c.Env, control.NamesVariable+"="+d.namesSocket())
	return c, nil
}

// stopProxies stops proxies and removes their cgroups. The caller holds d.mu.
func (d *Daemon) stopProxies(proxies []*proxy) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	var errs []error
	for _, p := range proxies {
		errs = append(errs, p.process.Stop(ctx), cgroup.Remove(d.proxyCgroup(p.name)))
		os.Remove(d.specPath(p.name))
		if d.proxies[p.name] == p {
			delete(d.proxies, p.name)
		}
		d.log.Info("stopped a proxy", "provider", p.name)
	}
	return errors.Join(errs...)
}

// stopUnwanted stops what p does not want started, here or left by an earlier
// daemon. The caller holds d.mu.
func (d *Daemon) stopUnwanted(p policy.Policy) error {
	wanted := func(name string) bool {
		return slices.ContainsFunc(p.Providers, func(p policy.Provider) bool { return p.Name == name && len(p.Exec) > 0 })
	}
	var unwanted []*proxy
	for name, proxy := range d.proxies {
		if !wanted(name) {
			unwanted = append(unwanted, proxy)
		}
	}
	err := d.stopProxies(unwanted)
	left, _ := os.ReadDir(filepath.Join(d.opts.Cgroup, "proxies")) // none is no error
	for _, entry := range left {
		if entry.IsDir() && !wanted(entry.Name()) {
			err = errors.Join(err, cgroup.Remove(d.proxyCgroup(entry.Name())))
		}
	}
	return err
}

// The spec of each proxy is kept beside its process, so that the next daemon
// can tell whether that is still the one that is wanted.
func (d *Daemon) specPath(name string) string {
	return filepath.Join(d.opts.RunDir, "proxy-"+name+".json")
}

func (d *Daemon) saveSpec(name string, s spec) error {
	raw, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return writeFile(d.specPath(name), raw)
}

func (d *Daemon) loadSpec(name string) (spec, error) {
	var s spec
	raw, err := os.ReadFile(d.specPath(name))
	if err == nil {
		err = json.Unmarshal(raw, &s)
	}
	return s, err
}
