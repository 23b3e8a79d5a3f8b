//go:build linux

// Package run puts proxies in front of one command: it starts them, has
// waybill redirect the command's connections to them in order, and takes
// everything away when the command ends.
package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/waybill-net/waybill/internal/cgroup"
	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/routes"
)

// Options for [Run]. Only Command must be given.
type Options struct {
	Via     []string // presets, in the order in which a connection meets them; or providers of Policy
	Command []string

	// Policy takes the place of presets: its providers are started, and its
	// filters apply to the command.
	Policy *policy.Policy

	User string // whom the command runs as; empty: as this process

	Ports       []policy.PortRange // to redirect; empty: all that a proxy takes
	Destination []netip.Prefix     // as in policy.Filter
	UDP         bool               // redirect it, too, to the proxies that take it
	OnDown      policy.OnDown      // what becomes of a connection while its proxy is dead

	// Settings of presets: by preset, then by option.
	Settings map[string]map[string]string

	// Output gets what the proxies print, line by line. nil: nobody.
	Output io.Writer
	// Messages gets what the person at the terminal should know.
	Messages io.Writer

	// Timeout bounds the wait for each proxy to listen. Default 30 s: the
	// first start of one may make keys.
	Timeout time.Duration
}

const defaultTimeout = 30 * time.Second

func (o *Options) withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	timeout := cmp.Or(o.Timeout, defaultTimeout)
	return context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not within %v", timeout))
}

// Run runs the command with the standard files of this process and returns
// the status that a shell would give for it: its own, or 128 and the number
// of the signal that ended it. An error means that the command did not run;
// it is an [*ExecError] if that was the command's own fault.
//
// Signals that ask this process to end are passed to the command. Before it
// has started they end Run with a [*SignalError].
func Run(ctx context.Context, opts Options) (status int, err error) {
	app, err := newApp(opts)
	if err != nil {
		return 0, err
	}
	chain, err := newProxies(opts)
	if err != nil {
		return 0, err
	}
	signals, ctx := catchSignals(ctx)
	defer signals.release()
	s, err := newStage(opts)
	if err != nil {
		return 0, err
	}
	defer func() {
		chain.stop()
		if cerr := s.close(); cerr != nil {
			opts.report("%v", cerr) // the status is the command's all the same
		}
	}()
	if err := chain.start(ctx, s, opts); err != nil {
		return 0, err
	}
	if err := s.engine.Apply(chain.policy(opts)); err != nil {
		return 0, err
	}
	app.env = append(app.env, chain.environ()...)
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	if err := app.start(s.appCgroup); err != nil {
		return 0, err
	}
	signals.passTo(app.process())
	return app.wait(), nil
}

// proxies are what stands in front of the command.
type proxies interface {
	start(context.Context, *stage, Options) error
	policy(Options) policy.Policy
	environ() []string // for the command
	stop()
}

func newProxies(opts Options) (proxies, error) {
	if opts.Policy != nil {
		return newDeclared(opts)
	}
	return newChain(opts)
}

// stage is what a run has of its own on the machine.
type stage struct {
	scope     *cgroup.Temporary
	work      *workDir
	engine    *engine.Engine
	names     *toldNames
	unfollow  func() // ends what follows the routes
	appCgroup string

	mu      sync.Mutex // proxies that run may tell names before the last has started
	proxies []string   // cgroups of providers
}

func newStage(opts Options) (s *stage, err error) {
	s = &stage{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	name := fmt.Sprintf("waybill-run-%d", os.Getpid())
	if s.work, err = newWorkDir(name); err != nil {
		return s, err
	}
	// Below our own cgroup: the command stays under the limits, and in front of
	// the proxies, that we have ourselves. A run inside a run is a chain of two.
	parent, err := cgroup.Own()
	if err != nil {
		return s, err
	}
	if s.scope, err = cgroup.CreateTemporaryIn(parent, name); err != nil {
		return s, err
	}
	if s.engine, err = engine.Open(engine.Options{Scope: s.scope.Dir}); err != nil {
		return s, err
	}
	if s.names, err = listenNames(s, opts); err != nil {
		return s, err
	}
	s.followRoutes(opts)
	s.appCgroup, err = s.cgroup("app")
	return s, err
}

// followRoutes lets the command see the addresses that it would have without
// proxies. It goes on without that, too.
func (s *stage) followRoutes(opts Options) {
	report := func(err error) { opts.report("%v", err) }
	f, err := routes.New(s.engine)
	if err != nil {
		report(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { f.Run(ctx, report) })
	s.unfollow = func() {
		cancel()
		wg.Wait()
		f.Close()
	}
}

// cgroup makes a cgroup below the scope.
func (s *stage) cgroup(name string) (string, error) {
	dir := filepath.Join(s.scope.Dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("create cgroup: %w", err)
	}
	return dir, nil
}

// proxyCgroup makes one for the processes of a provider.
func (s *stage) proxyCgroup(name string) (string, error) {
	dir, err := s.cgroup(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proxies = append(s.proxies, dir)
	return dir, err
}

// isProxy reports whether a process belongs to a provider.
func (s *stage) isProxy(p *control.Peer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.IsIn(s.proxies...)
}

// close takes everything away. Whatever still runs in the scope is killed.
func (s *stage) close() error {
	var errs []error
	if s.names != nil {
		errs = append(errs, s.names.close())
	}
	if s.unfollow != nil {
		s.unfollow()
	}
	if s.engine != nil {
		errs = append(errs, s.engine.Close())
	}
	if s.scope != nil {
		errs = append(errs, s.scope.Close())
	}
	if s.work != nil {
		errs = append(errs, s.work.close())
	}
	return errors.Join(errs...)
}

// report prints a message for the person at the terminal.
func (o Options) report(format string, args ...any) {
	if o.Messages != nil {
		fmt.Fprintf(o.Messages, "waybill: "+format+"\n", args...)
	}
}
