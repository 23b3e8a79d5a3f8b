//go:build linux

// Package daemon keeps waybill at work on a host: it puts a policy into the
// kernel and keeps it true, starts the proxies that the policy wants started,
// writes down what happens, and answers for all of it.
//
// What it puts into the kernel does not depend on it: when it ends, however it
// ends, traffic goes on as before, and the next daemon takes over.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waybill-net/waybill/internal/cgroup"
	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/flowstore"
	"github.com/waybill-net/waybill/internal/identity"
	"github.com/waybill-net/waybill/internal/names"
	"github.com/waybill-net/waybill/internal/origin"
	"github.com/waybill-net/waybill/internal/routes"
	"github.com/waybill-net/waybill/internal/watch"
)

// Options for [Open]. The zero value is that of a host.
type Options struct {
	Policy  string // the policy file; default /etc/waybill/policy.yaml, which need not exist
	Scope   string // the cgroup that is covered; default: the root of cgroup v2
	State   string // in a BPF file system; default /sys/fs/bpf/waybill
	RunDir  string // the socket, and what is to end with a reboot; default /run/waybill
	DataDir string // the flows; default /var/lib/waybill
	Cgroup  string // for the processes that it starts; default: the unit's own, or SCOPE/waybill
	Replace bool   // state of a version that can not be adopted: end it and begin anew
	Version string
	Log     *slog.Logger // default: the standard one
}

// The paths of a host.
const (
	DefaultPolicy  = "/etc/waybill/policy.yaml"
	DefaultState   = "/sys/fs/bpf/waybill"
	DefaultRunDir  = "/run/waybill"
	DefaultDataDir = "/var/lib/waybill"
)

func (o *Options) complete() error {
	set := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	set(&o.Policy, DefaultPolicy)
	set(&o.State, DefaultState)
	set(&o.RunDir, DefaultRunDir)
	set(&o.DataDir, DefaultDataDir)
	if o.Scope == "" {
		root, err := cgroup.Root()
		if err != nil {
			return err
		}
		o.Scope = root
	}
	o.Scope = filepath.Clean(o.Scope)
	set(&o.Cgroup, defaultCgroup(o.Scope))
	if rel, err := filepath.Rel(o.Scope, o.Cgroup); err != nil || rel == "." || strings.HasPrefix(rel, "..") {
		return fmt.Errorf("use cgroup %s: it is not below the scope %s, so its connections would not be seen; try --cgroup %s",
			o.Cgroup, o.Scope, filepath.Join(o.Scope, "waybill"))
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return nil
}

// defaultCgroup is that of the systemd unit, which has delegated it to us, or
// else one below the scope.
func defaultCgroup(scope string) string {
	if os.Getenv("INVOCATION_ID") != "" {
		own, err := cgroup.Own()
		if err == nil && strings.HasSuffix(own, ".service") && strings.HasPrefix(own, scope+"/") {
			return own
		}
	}
	return filepath.Join(scope, "waybill")
}

// Daemon is a running daemon.
type Daemon struct {
	opts    Options
	log     *slog.Logger
	started time.Time
	work    atomic.Pointer[context.Context] // of Work
	engine  *engine.Engine
	names   *names.Keeper
	store   atomic.Pointer[flowstore.Store]
	watcher *watch.Watcher
	routes  *routes.Follower // nil: they can not be followed
	feed    feed
	origins origin.Resolver
	units   units
	lock    *os.File // of the run directory

	proxyDirs atomic.Pointer[[]string] // cgroups of providers of the policy in force

	mu      sync.Mutex // one change at a time
	applied applied    // the policy in force
	proxies map[string]*proxy
	runs    map[string]*activeRun
}

// Open takes over what an earlier daemon left in the kernel, or begins, and
// puts the policy in force. It changes nothing if that policy is not valid and
// another one is in force.
func Open(opts Options) (*Daemon, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	d := &Daemon{
		opts: opts, log: opts.Log, started: time.Now(),
		proxies: make(map[string]*proxy), runs: make(map[string]*activeRun),
	}
	if err := d.open(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *Daemon) open() (err error) {
	for dir, mode := range map[string]fs.FileMode{d.opts.RunDir: 0o755, d.opts.DataDir: 0o700} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return err
		}
	}
	if d.lock, err = lockRunDir(d.opts.RunDir); err != nil {
		return err
	}
	if err := d.checkTrace(); err != nil {
		return err
	}
	if err := d.saveTrace(); err != nil {
		return err
	}
	if d.engine, err = d.openEngine(); err != nil {
		return err
	}
	if err := d.openNames(); err != nil {
		d.log.Error("names are forgotten", "error", err)
	}
	if d.routes, err = routes.New(d.engine); err != nil {
		d.log.Warn("programs see the addresses of their connections to proxies", "error", err)
	}
	if err := d.renewStore(); err != nil {
		d.log.Error("flows are not written down; trying again", "error", err)
	}
	if d.watcher, err = watch.New(d.watchedPaths); err != nil {
		return err
	}
	d.restoreRuns()
	return d.restorePolicy()
}

func (d *Daemon) openEngine() (*engine.Engine, error) {
	opts := engine.Options{Scope: d.opts.Scope, State: d.opts.State, Version: d.opts.Version}
	e, err := engine.Open(opts)
	var other *engine.VersionError
	if errors.As(err, &other) && d.opts.Replace {
		d.log.Warn("replacing the state of another version: connections in mid-handshake lose their records", "version", other.Made)
		if err := engine.Remove(d.opts.State); err != nil {
			return nil, err
		}
		e, err = engine.Open(opts)
	}
	if err != nil {
		return nil, err
	}
	d.log.Info("programs are attached", "scope", d.opts.Scope, "adopted", e.Adopted())
	return e, nil
}

func (d *Daemon) openStore() (*flowstore.Store, error) {
	store, err := flowstore.Open(flowstore.Options{
		Path:    filepath.Join(d.opts.DataDir, "flows.db"),
		Details: d.origins.Details,
	})
	if err != nil {
		return nil, err
	}
	if warning := store.Warning(); warning != nil {
		d.log.Warn("began a new file of flows", "reason", warning)
	}
	return store, nil
}

// Work does the daemon's work until ctx ends.
func (d *Daemon) Work(ctx context.Context) error {
	d.work.Store(&ctx)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { d.watcher.Run(ctx, d.refresh) })
	wg.Go(func() { d.names.Run(ctx) })
	if d.routes != nil {
		wg.Go(func() { d.routes.Run(ctx, func(err error) { d.log.Warn(err.Error()) }) })
	}
	err := d.record(ctx)
	cancel()
	return err
}

// Close lets go of everything. Programs, proxies and connections go on.
func (d *Daemon) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.proxies {
		p.process.Leave()
	}
	var errs []error
	if store := d.store.Load(); store != nil {
		errs = append(errs, store.Close())
	}
	if d.routes != nil {
		errs = append(errs, d.routes.Close())
	}
	if d.engine != nil {
		errs = append(errs, d.engine.Close())
	}
	if d.lock != nil {
		errs = append(errs, unlock(d.lock))
	}
	return errors.Join(errs...)
}

// refresh follows what has come, gone or been replaced.
func (d *Daemon) refresh() {
	d.mu.Lock()
	defer d.mu.Unlock()
	changed, err := d.followUnits()
	err = errors.Join(err, d.clearRuns())
	if d.store.Load() == nil {
		err = errors.Join(err, d.renewStore())
	}
	if err == nil && !changed {
		changed, err = d.engine.Refresh()
	}
	if err != nil {
		d.log.Error("following a change on the host", "error", err)
	} else if changed {
		d.log.Info("followed a change on the host", "unmatched", d.engine.Unmatched())
	}
}

func (d *Daemon) watchedPaths() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.applied.effective
	return append(identity.Programs(p), identity.Cgroups(p)...)
}
