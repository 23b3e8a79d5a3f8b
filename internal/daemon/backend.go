//go:build linux

package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/waybill-net/waybill/internal/cgroup"
	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/explain"
	"github.com/waybill-net/waybill/internal/flow"
	"github.com/waybill-net/waybill/internal/flowstore"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/supervise"
)

// Backend is the daemon as its API sees it.
type Backend struct{ *Daemon }

var _ control.Backend = Backend{}

// Status implements [control.Backend].
func (b Backend) Status(context.Context) (*control.Status, error) {
	counters, err := b.engine.Counters()
	if err != nil {
		return nil, err
	}
	inFlight, err := b.engine.InFlight()
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	providers, err := b.providers()
	if err != nil {
		return nil, err
	}
	s := &control.Status{
		Version: b.opts.Version, PID: os.Getpid(), Started: b.started,
		Scope: b.opts.Scope, State: b.opts.State, Adopted: b.engine.Adopted(),
		Policy: b.policyStatus(), Providers: providers,
		Counters: counters, InFlight: inFlight, Runs: len(b.runs),
		Unmatched: b.engine.Unmatched(),
	}
	for _, w := range b.applied.warnings() {
		s.Warnings = append(s.Warnings, fmt.Sprintf("%s:%d: %s", w.File, w.Line, w.Message))
	}
	if b.applied.file == nil {
		s.Warnings = append(s.Warnings, "the policy in force is known to the kernel alone: apply one")
	}
	if b.store.Load() == nil {
		s.Warnings = append(s.Warnings, "flows are not written down: the log says why")
	}
	return s, nil
}

// The caller holds b.mu.
func (b Backend) policyStatus() control.PolicyStatus {
	s := control.PolicyStatus{
		Name: b.applied.Name, Generation: b.engine.Generation(), Applied: b.applied.Time, Mode: control.Enforce,
	}
	if b.applied.file != nil {
		s.Filters = len(b.applied.file.Policy.Filters)
		s.Mode = modeOf(b.applied.file.Policy.Shadow)
	}
	return s
}

func modeOf(shadow bool) control.Mode {
	if shadow {
		return control.Shadow
	}
	return control.Enforce
}

// providers describes the providers in their order. The caller holds b.mu.
func (b Backend) providers() ([]control.Provider, error) {
	counters, err := b.engine.ProviderCounters()
	if err != nil {
		return nil, err
	}
	listeners, err := b.engine.Listeners()
	if err != nil {
		return nil, err
	}
	providers := []control.Provider{}
	for _, p := range policy.InOrder(b.applied.effective.Providers) {
		described, err := b.describe(p, counters[p.Name], listeners)
		if err != nil {
			return nil, err
		}
		providers = append(providers, described)
	}
	return providers, nil
}

func (b Backend) describe(p policy.Provider, c engine.ProviderCounters, listeners []engine.Listener) (control.Provider, error) {
	pids, err := cgroup.Processes(p.Cgroup)
	if err != nil {
		return control.Provider{}, err
	}
	d := control.Provider{
		Name: p.Name, Weight: p.Weight, OnDown: p.OnDown.String(), OpenTo: p.OpenTo,
		Mode:      modeOf(p.Shadow || b.applied.effective.Shadow),
		Processes: control.Processes{Unit: p.Unit, Exec: p.Exec, User: p.User, Cgroup: p.Cgroup, PIDs: pids},
		Counters:  control.ProviderCounters(c),
	}
	for _, a := range p.Addresses(policy.TCP) {
		address, err := describeAddress(&p, a, pids, listeners)
		if err != nil {
			return d, err
		}
		d.Addresses = append(d.Addresses, address)
	}
	for _, a := range p.Addresses(policy.UDP) {
		address, err := describeUDP(a, pids)
		if err != nil {
			return d, err
		}
		d.Addresses = append(d.Addresses, address)
	}
	if started := b.proxies[p.Name]; started != nil {
		s := started.process.State()
		d.Proxy = &control.Proxy{Running: s.Running, PID: s.PID, Since: s.Since, Restarts: s.Restarts, LastExit: s.LastExit}
	}
	d.Problem = problemOf(&d)
	return d, nil
}

// problemOf says why connections can not be redirected to a provider.
func problemOf(p *control.Provider) string {
	switch {
	case p.Proxy != nil && !p.Proxy.Running:
		return "its proxy ended (" + p.Proxy.LastExit + ") and is going to be started again"
	case len(p.Processes.PIDs) == 0:
		return "no process runs in its cgroup " + p.Processes.Cgroup
	}
	for _, a := range p.Addresses {
		if a.Problem != "" {
			return a.Problem
		}
	}
	return ""
}

// describeAddress judges as the connect hook does. Of a proxy in another
// network namespace it knows only whether it listens.
func describeAddress(p *policy.Provider, a netip.AddrPort, pids []int, listeners []engine.Listener) (control.Address, error) {
	d := control.Address{Address: a}
	stranger := false
	for i := range listeners {
		switch l := &listeners[i]; {
		case !l.Takes(a):
		case l.Owner != p.Name:
			stranger = true
		default:
			d.Listening, d.Waiting, d.Problem = true, l.Waiting, stuck(p, l)
			return d, nil
		}
	}
	if len(pids) > 0 && !stranger {
		var err error
		if d.Listening, err = supervise.IsListening(pids[0], a); err != nil {
			return d, err
		}
	}
	switch {
	case stranger:
		d.Problem = fmt.Sprintf("another process listens on %s", a)
	case !d.Listening:
		d.Problem = fmt.Sprintf("nothing listens on %s", a)
	}
	return d, nil
}

// describeUDP knows whether somebody receives there in the network namespace of
// the provider's processes. Whether that is one of them, only the hook sees.
func describeUDP(a netip.AddrPort, pids []int) (control.Address, error) {
	d := control.Address{Address: a, Protocol: "udp"}
	if len(pids) > 0 {
		var err error
		if d.Listening, err = supervise.IsReceiving(pids[0], a); err != nil {
			return d, err
		}
	}
	if !d.Listening {
		d.Problem = fmt.Sprintf("nothing receives on %s/udp", a)
	}
	return d, nil
}

// stuck says why the provider's own listener can not be given connections.
func stuck(p *policy.Provider, l *engine.Listener) string {
	switch {
	case l.Full():
		return fmt.Sprintf("it listens on %s but has no room for more than the %d connections that wait to be accepted", l.At, l.Waiting)
	case l.Waiting > 0 && l.LongestWait > p.StuckLimit():
		return fmt.Sprintf("it listens on %s but does not accept: a connection has waited for %v", l.At, l.LongestWait.Round(100*time.Millisecond))
	}
	return ""
}

// Policy implements [control.Backend].
func (b Backend) Policy(context.Context) (*control.Policy, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return &control.Policy{PolicyStatus: b.policyStatus(), YAML: string(b.applied.Text)}, nil
}

// ApplyPolicy implements [control.Backend].
func (b Backend) ApplyPolicy(_ context.Context, name string, yaml []byte) (*control.Applied, error) {
	file, err := b.Daemon.ApplyPolicy(name, yaml)
	if err != nil {
		return nil, err
	}
	return &control.Applied{
		Generation: b.engine.Generation(),
		Providers:  len(file.Policy.Providers),
		Filters:    len(file.Policy.Filters),
		Warnings:   file.Warnings,
	}, nil
}

// Explain implements [control.Backend]. Providers that are down are taken for
// down.
func (b Backend) Explain(_ context.Context, q explain.Question) (policy.Explanation, error) {
	if len(q.Names) == 0 {
		q.Names = b.names.Of(q.Dst.Addr())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	providers, err := b.providers()
	if err != nil {
		return policy.Explanation{}, err
	}
	for _, p := range providers {
		if p.Problem != "" {
			q.Down = append(q.Down, p.Name)
		}
	}
	answer, err := explain.Answer(b.applied.effective, q)
	if err == nil {
		return answer, nil
	}
	said := &control.Error{Status: http.StatusUnprocessableEntity, Message: err.Error()}
	if hinted := new(explain.HintedError); errors.As(err, &hinted) {
		said.Hint = hinted.Hint
	}
	return answer, said
}

// flows is an error while the file can not be opened.
func (b Backend) flows() (*flowstore.Store, error) {
	if store := b.store.Load(); store != nil {
		return store, nil
	}
	return nil, &control.Error{Status: http.StatusServiceUnavailable, Message: "flows are not written down", Hint: "the daemon's log says why; look at " + b.opts.DataDir}
}

// Flows implements [control.Backend].
func (b Backend) Flows(ctx context.Context, q flowstore.Query) ([]flow.Flow, error) {
	store, err := b.flows()
	if err != nil {
		return nil, err
	}
	return store.Flows(ctx, q)
}

// Flow implements [control.Backend].
func (b Backend) Flow(ctx context.Context, id flow.ID) (*flow.Flow, error) {
	store, err := b.flows()
	if err != nil {
		return nil, err
	}
	return store.Flow(ctx, id)
}

// SQL implements [control.Backend].
func (b Backend) SQL(ctx context.Context, query string) ([]string, [][]any, error) {
	store, err := b.flows()
	if err != nil {
		return nil, nil, err
	}
	return store.SQL(ctx, query)
}
