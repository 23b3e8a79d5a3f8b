//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/waybill-net/waybill/internal/engine"
)

// growthRounds is how long programs and policies stay before they are loaded
// anew; see roundsPerLoad.
const growthRounds = 5

// retirement is enough for the engine to take away the policy before, which
// Apply does not wait for.
const retirement = 500 * time.Millisecond

// sizes are the numbers of filters that are compared.
var sizes = []int{10, 1000, 10000}

// size has a scope of its own, with an engine and a policy of so many
// filters. All sizes are there at once, so that they can take turns without
// an Apply between them.
type size struct {
	filters   int
	dir       string // the scope
	app       *worker
	proxyPort uint16 // of an acceptor in the provider's cgroup
	programs  []string
	engine    *engine.Engine // in one load
	hooks     []hook
}

func (z *size) name() string { return sizeName(z.filters) }

func (s *scene) addSize(filters int) error {
	z := &size{filters: filters, dir: filepath.Join(s.root.Dir, fmt.Sprintf("scope-%d", filters)), programs: s.programs}
	for i := range mixedCgroups {
		if err := os.MkdirAll(z.otherCgroup(i), 0o755); err != nil {
			return fmt.Errorf("make scope of %s: %w", z.name(), err)
		}
	}
	var err error
	if z.app, err = s.client("app", z.appDir()); err != nil {
		return err
	}
	if z.proxyPort, err = s.acceptor("proxy", z.proxyDir()); err != nil {
		return err
	}
	s.sizes = append(s.sizes, z)
	return nil
}

// growth measures what the number of filters costs.
func (s *scene) growth(ctx context.Context, opts options) (*growth, error) {
	g := &growth{results: make(results), memory: make(map[key]uint64)}
	for first := 0; first < opts.rounds; first += growthRounds {
		if err := s.loadSizes(ctx, g, first, min(first+growthRounds, opts.rounds), opts.calls); err != nil {
			return nil, fmt.Errorf("measure growth: %w", err)
		}
	}
	return g, nil
}

func (s *scene) loadSizes(ctx context.Context, g *growth, first, end, calls int) (err error) {
	for _, z := range s.sizes {
		if z.engine, err = engine.Open(engine.Options{Scope: z.dir}); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, z.engine.Close()) }()
		z.hooks, err = openHooks(z.dir)
		defer func() { closeHooks(z.hooks) }()
		if err != nil {
			return err
		}
	}
	for _, i := range rand.Perm(len(kinds)) {
		if err := s.measureKind(ctx, g, kinds[i], first, end, calls); err != nil {
			return fmt.Errorf("filters of the kind %s: %w", kinds[i].name, err)
		}
	}
	for _, z := range s.sizes {
		err = errors.Join(err, checkCounters(z.engine, "redirected", "passed"))
	}
	return err
}

func (s *scene) measureKind(ctx context.Context, g *growth, k kind, first, end, calls int) error {
	if err := s.applyKind(g, k, first); err != nil {
		return err
	}
	for round := first; round < end; round++ {
		for _, m := range measures {
			if err := g.results.round(ctx, s.growthVariants(m, k), round, calls); err != nil {
				return err
			}
		}
	}
	return s.growthHooks(ctx, g.results, k, first, end, calls/turnsPerRound)
}

// applyKind puts a policy of each size in force.
func (s *scene) applyKind(g *growth, k kind, turn int) error {
	for _, z := range s.sizes {
		if err := z.apply(g, k, turn); err != nil {
			return err
		}
	}
	time.Sleep(retirement)
	for _, z := range s.sizes {
		used, err := memoryOf(z.hooks[0].program)
		if err != nil {
			return err
		}
		g.memory[key{k.name, z.name()}] = used
	}
	return nil
}

// apply puts a policy in force, and times that.
func (z *size) apply(g *growth, k kind, turn int) error {
	p := z.policy(k)
	began := time.Now()
	if err := z.engine.Apply(p); err != nil {
		return err
	}
	g.results.add(k.section(measureApply), z.name(), turn, []float64{nanoseconds(time.Since(began))})
	return nil
}

const (
	measureStray     = "connect() without a route"
	measurePass      = "connect(), not redirected"
	measureRedirect  = "connect(), redirected"
	measureAny       = "connect(), each redirected by another filter"
	measureStrayHook = "the hook alone, not redirected"
	measureHook      = "the hook alone, redirected"
	measureApply     = "Apply"
)

// section has one kind of policy in one measure.
func (k kind) section(measure string) string { return measure + ", " + k.name }

// measures are what the workers time; the kernel times the others.
var measures = []string{measureStray, measurePass, measureRedirect, measureAny}

// growthVariants are what takes turns in one section: the sizes, and no hook.
func (s *scene) growthVariants(measure string, k kind) []variant {
	direct := connectTo(nameDirect, s.direct, local(s.originPort))
	direct.section = k.section(measure)
	if measure == measureStray {
		direct.order = order{Op: opStray, To: []netip.AddrPort{k.stray}}
	}
	variants := []variant{direct}
	for _, z := range s.sizes {
		v := direct
		v.name, v.worker = z.name(), z.app
		switch measure {
		case measureRedirect:
			v.order.To = []netip.AddrPort{k.last(z.filters)}
		case measureAny:
			if k.anyOf == nil {
				return nil
			}
			v.anyOf = k.all(z.filters)
		}
		variants = append(variants, v)
	}
	return variants
}

// growthHooks asks the kernel how long the connect hook runs. It measures
// after the others because the kernel's measuring slows them down.
func (s *scene) growthHooks(ctx context.Context, r results, k kind, first, end, calls int) error {
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return fmt.Errorf("enable run-time statistics: %w", err)
	}
	defer stats.Close()
	for turn := first * turnsPerRound; turn < end*turnsPerRound; turn++ {
		for timed, measure := range map[string]string{measureStrayHook: measureStray, measureHook: measureRedirect} {
			variants := s.growthVariants(measure, k)[1:]
			for _, i := range rand.Perm(len(variants)) {
				if err := ctx.Err(); err != nil {
					return err
				}
				took, err := perRun(s.sizes[i].hooks[:1], variants[i], calls)
				if err != nil {
					return err
				}
				r.add(k.section(timed), variants[i].name, turn, []float64{took})
			}
		}
	}
	return nil
}

// perRun makes the calls and returns what one run of the hook took.
func perRun(hooks []hook, v variant, calls int) (float64, error) {
	before, err := readStats(hooks)
	if err != nil {
		return 0, err
	}
	if _, err := v.run(calls); err != nil {
		return 0, err
	}
	after, err := readStats(hooks)
	if err != nil {
		return 0, err
	}
	runs := after[0].RunCount - before[0].RunCount
	if runs < uint64(calls) {
		return 0, fmt.Errorf("measure the hook %s: %d runs in %d calls", hooks[0].name, runs, calls)
	}
	return nanoseconds(after[0].Runtime-before[0].Runtime) / float64(runs), nil
}
