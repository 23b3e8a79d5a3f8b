//go:build linux

package run

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/preset"
	"github.com/waybill-net/waybill/internal/supervise"
)

// chain is the proxies of one run, in order.
type chain struct{ links []*link }

// link is one proxy.
type link struct {
	preset    *preset.Preset
	prepared  *preset.Prepared
	listen    netip.AddrPort
	cgroup    string
	ca        string // certificate; empty: none
	ports     []policy.PortRange
	processes []*supervise.Process
	listening atomic.Bool // all of them have listened once
}

func newChain(opts Options) (*chain, error) {
	c := &chain{}
	for _, name := range opts.Via {
		p, err := preset.Lookup(name)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(c.links, func(l *link) bool { return l.preset.Name == name }) {
			return nil, fmt.Errorf("put proxy %s in the chain: it is there already", name)
		}
		c.links = append(c.links, &link{preset: p})
	}
	for name := range opts.Settings {
		if !slices.Contains(opts.Via, name) {
			return nil, fmt.Errorf("set an option of %s: it is not in the chain", name)
		}
	}
	return c, nil
}

// start starts the proxies, one after the other, and waits until they listen.
func (c *chain) start(ctx context.Context, s *stage, opts Options) error {
	// All first: what is missing is said before anything has started.
	for _, l := range c.links {
		if err := l.prepare(s, opts); err != nil {
			return err
		}
	}
	for _, l := range c.links {
		if err := l.start(ctx, s, opts); err != nil {
			return err
		}
	}
	return nil
}

func (l *link) prepare(s *stage, opts Options) error {
	site, err := newSite()
	if err != nil {
		return err
	}
	name := l.preset.Name
	site.UDP = opts.UDP && l.preset.UDP
	site.Names = s.names.socket
	site.Dir, site.Options, site.Self = filepath.Join(s.work.path, name), opts.Settings[name], os.Args[0]
	l.listen = site.Listen
	if l.prepared, err = l.preset.Prepare(site); err != nil {
		return err
	}
	var ok bool
	if l.ports, ok = preset.CommonPorts(l.prepared.Ports, opts.Ports); !ok {
		return fmt.Errorf("put proxy %s in the chain: none of the ports asked for is one that it takes", name)
	}
	l.cgroup, err = s.proxyCgroup(name)
	return err
}

// newSite chooses the addresses of a proxy: the same port for both families.
func newSite() (preset.Site, error) {
	host4, host6 := netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()
	if _, err := preset.FreePort(host6); err != nil {
		port, err := preset.FreePort(host4) // a machine without IPv6
		return preset.Site{Listen: netip.AddrPortFrom(host4, port)}, err
	}
	port, err := preset.FreePort(host4, host6)
	return preset.Site{Listen: netip.AddrPortFrom(host4, port), Listen6: netip.AddrPortFrom(host6, port)}, err
}

func (l *link) start(ctx context.Context, s *stage, opts Options) error {
	ctx, cancel := opts.withTimeout(ctx)
	defer cancel()
	for i, p := range l.prepared.Processes {
		var err error
		// Each in a cgroup of its own below the provider's, whose processes they all are.
		if p.Cgroup, err = s.cgroup(fmt.Sprintf("%s/%d", l.preset.Name, i)); err != nil {
			return err
		}
		p.Output = opts.Output
		p.OnExit = func(exit string, wait time.Duration) {
			if !l.listening.Load() {
				return // the error of this start says it
			}
			opts.report("%s ended (%s); starting it again in %v", p.Name, exit, wait)
		}
		process, err := supervise.Start(p.Command)
		if err != nil {
			return err
		}
		l.processes = append(l.processes, process)
		if err := process.WaitListening(ctx, p.Listen...); err != nil {
			return err
		}
	}
	l.listening.Store(true)
	return l.announce(s, opts)
}

// announce says what a person should know of a proxy that listens.
func (l *link) announce(s *stage, opts Options) error {
	if opts.UDP && !l.preset.UDP {
		opts.report("%s takes TCP only; UDP goes past it", l.preset.Name)
	}
	if l.preset.IPv4Only {
		fate := "go past it"
		if opts.OnDown == policy.Block {
			fate = "are refused"
		}
		opts.report("%s takes IPv4 only; IPv6 connections %s", l.preset.Name, fate)
	}
	if l.prepared.CA == "" {
		return nil
	}
	var err error
	if l.ca, err = s.work.publishCertificate(l.preset.Name, l.prepared.CA); err != nil {
		return err
	}
	opts.report("%s signs with the certificate %s, also in $WAYBILL_CA", l.preset.Name, l.ca)
	return nil
}

// stopTimeout is how long a proxy may take for its last lines.
const stopTimeout = 2 * time.Second

func (c *chain) stop() {
	var processes []*supervise.Process
	for _, l := range c.links {
		processes = append(processes, l.processes...)
	}
	stopAll(processes)
}

// stopAll ends the proxies, all at once.
func stopAll(processes []*supervise.Process) {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	var stopping sync.WaitGroup
	for _, p := range processes {
		stopping.Go(func() { p.Stop(ctx) }) // what it leaves goes with the scope
	}
	stopping.Wait()
}

// policy puts the first proxy of the chain first.
func (c *chain) policy(opts Options) policy.Policy {
	var p policy.Policy
	for i, l := range c.links {
		provider := policy.Provider{
			Name:   l.preset.Name,
			Weight: int32(100 * (len(c.links) - i)),
			Listen: l.listen, Listen6: l.prepared.Listen6,
			Cgroup: l.cgroup,
			OnDown: opts.OnDown, Emulate: l.preset.Emulate,
		}
		filter := policy.Filter{
			Name:        "run",
			Provider:    l.preset.Name,
			Destination: opts.Destination,
			Ports:       l.ports,
		}
		if opts.UDP && l.preset.UDP {
			provider.UDP, provider.UDP6 = provider.Listen, provider.Listen6
			filter.Protocols = []policy.Protocol{policy.TCP, policy.UDP}
		}
		p.Providers, p.Filters = append(p.Providers, provider), append(p.Filters, filter)
	}
	return p
}

// environ tells the command whose certificates it may have to trust.
func (c *chain) environ() []string {
	var env []string
	for _, l := range c.links {
		if l.ca != "" {
			env = append(env, "WAYBILL_CA="+l.ca)
		}
	}
	return env
}
