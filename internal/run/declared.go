//go:build linux

package run

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/supervise"
)

// declared is the proxies of a policy, which say how they are started.
type declared struct {
	p         policy.Policy
	processes []*supervise.Process
}

// newDeclared takes from the policy what concerns the providers in via; none
// means all of them.
func newDeclared(opts Options) (*declared, error) {
	d := &declared{p: *opts.Policy}
	for _, name := range opts.Via {
		if !slices.ContainsFunc(d.p.Providers, func(p policy.Provider) bool { return p.Name == name }) {
			return nil, fmt.Errorf("put %s in the chain: no provider %q in the policy", name, name)
		}
	}
	wanted := func(name string) bool { return len(opts.Via) == 0 || slices.Contains(opts.Via, name) }
	d.p.Providers = slices.DeleteFunc(slices.Clone(d.p.Providers), func(p policy.Provider) bool { return !wanted(p.Name) })
	d.p.Filters = slices.DeleteFunc(slices.Clone(d.p.Filters), func(f policy.Filter) bool { return !wanted(f.Provider) })
	for _, p := range d.p.Providers {
		if len(p.Exec) == 0 {
			return nil, fmt.Errorf("put %s in the chain: its processes are not started by the policy, and those of the host are not covered by a run; give it exec, or let the daemon run", p.Name)
		}
	}
	return d, nil
}

func (d *declared) start(ctx context.Context, s *stage, opts Options) error {
	ctx, cancel := opts.withTimeout(ctx)
	defer cancel()
	for i := range d.p.Providers {
		p := &d.p.Providers[i]
		c, err := d.command(p, s, opts)
		if err != nil {
			return fmt.Errorf("start %s: %w", p.Name, err)
		}
		process, err := supervise.Start(c)
		if err != nil {
			return err
		}
		d.processes = append(d.processes, process)
		if err := process.WaitListening(ctx, p.Addresses(policy.TCP)...); err != nil {
			return err
		}
		if err := process.WaitReceiving(ctx, p.Addresses(policy.UDP)...); err != nil {
			return err
		}
	}
	return nil
}

func (d *declared) command(p *policy.Provider, s *stage, opts Options) (c supervise.Command, err error) {
	if p.Cgroup, err = s.proxyCgroup(filepath.Join("providers", p.Name)); err != nil {
		return c, err
	}
	c = supervise.Command{
		Name: p.Name, Arg0: p.Exec[0], Args: p.Exec[1:], Cgroup: p.Cgroup, Output: opts.Output,
		OnExit: func(exit string, wait time.Duration) {
			opts.report("%s ended (%s); starting it again in %v", p.Name, exit, wait)
		},
	}
	if c.Path, err = exec.LookPath(p.Exec[0]); err != nil {
		return c, err
	}
	c.Env = os.Environ()
	if p.User != "" {
		if c.User, err = supervise.LookupUser(p.User); err != nil {
			return c, err
		}
		c.Env = c.User.Environ(c.Env)
	}
	c.Env = append(c.Env, control.NamesVariable+"="+s.names.socket)
	return c, nil
}

func (d *declared) stop() { stopAll(d.processes) }

func (d *declared) policy(Options) policy.Policy { return d.p }

func (d *declared) environ() []string { return nil }
