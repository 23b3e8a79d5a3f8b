//go:build linux

package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/waybill-net/waybill/internal/cgroup"
)

// openPinned adopts the state in opts.State, or makes it.
func (e *Engine) openPinned(spec *ebpf.CollectionSpec, opts Options) error {
	s, err := openState(opts.State)
	if errors.Is(err, ErrNoState) {
		return e.createPinned(spec, opts)
	}
	if err != nil {
		return err
	}
	pattern, _ := unfinished(opts.State)
	if err := sweep(pattern); err != nil {
		return errors.Join(err, s.close())
	}
	err = e.adopt(s, spec, opts)
	if errors.Is(err, errDead) {
		// Its cgroup is gone, and the programs with it: nothing is lost by
		// starting anew.
		err = errors.Join(s.remove(), s.close())
		if err == nil {
			return e.createPinned(spec, opts)
		}
	}
	if err != nil {
		return errors.Join(err, s.close())
	}
	e.state, e.adopted = s, true
	return nil
}

func (e *Engine) createPinned(spec *ebpf.CollectionSpec, opts Options) error {
	s, err := newState(opts.State)
	if err != nil {
		return err
	}
	err = e.create(spec)
	if err == nil {
		err = errors.Join(e.putMeta(abi(spec), opts.Version), e.pin(s))
	}
	if err == nil {
		err = s.publish(opts.State)
	}
	if err != nil {
		return errors.Join(err, e.closeHooks(), os.RemoveAll(s.dir), s.close())
	}
	e.state = s
	return nil
}

// errDead says that the links of a state lead nowhere.
var errDead = errors.New("the scope's cgroup was removed")

// adopt takes over pinned maps and puts this build's programs in the place of
// those that run, one link after another. Both have the same maps, so no
// connection notices.
func (e *Engine) adopt(s *state, spec *ebpf.CollectionSpec, opts Options) error {
	if err := s.check(spec, opts); err != nil {
		return err
	}
	pinned, err := s.loadMaps(spec)
	if err != nil {
		return err
	}
	err = spec.LoadAndAssign(&e.objects, &ebpf.CollectionOptions{MapReplacements: pinned})
	for _, m := range pinned {
		m.Close() // the objects have duplicates
	}
	if err != nil {
		return explainLoadError(err)
	}
	if err := errors.Join(e.putMeta(abi(spec), opts.Version), e.adoptPolicy(s)); err != nil {
		return errors.Join(err, e.objects.Close())
	}
	if err := e.replacePrograms(s); err != nil {
		return errors.Join(err, e.closeHooks(), e.objects.Close())
	}
	return nil
}

// check compares the state with what is to be opened.
func (s *state) check(spec *ebpf.CollectionSpec, opts Options) error {
	meta, err := s.readMeta()
	if err != nil {
		return err
	}
	if meta.Abi != abi(spec) {
		return &VersionError{Dir: s.dir, Made: getString(meta.Version[:]), This: opts.Version}
	}
	if scope := getString(meta.Scope[:]); scope != opts.Scope {
		return fmt.Errorf("adopt state %s: it is of the scope %s, not of %s", s.dir, scope, opts.Scope)
	}
	id, err := cgroup.Identify(opts.Scope)
	if err != nil {
		return err
	}
	if id.ID != meta.Cgroup {
		return errDead
	}
	return nil
}

// loadMaps opens the pinned maps and makes the spec fit those whose size is
// an option.
func (s *state) loadMaps(spec *ebpf.CollectionSpec) (map[string]*ebpf.Map, error) {
	pinned := make(map[string]*ebpf.Map)
	for name, m := range spec.Maps {
		if !isKept(name) {
			continue
		}
		p, err := ebpf.LoadPinnedMap(s.mapPath(name), nil)
		if err != nil {
			for _, m := range pinned {
				m.Close()
			}
			return nil, fmt.Errorf("adopt map %s: %w", name, err)
		}
		m.MaxEntries = p.MaxEntries()
		pinned[name] = p
	}
	limit := pinned[kernelMapInflight].MaxEntries() - inFlightMargin
	return pinned, spec.Variables[kernelVarInflightLimit].Set(limit)
}

// adoptPolicy finds the policy in force, and takes away what a process that
// was killed in the middle of Apply has left.
func (e *Engine) adoptPolicy(s *state) error {
	inner, err := e.findInner(s)
	if err != nil || inner == nil {
		return err
	}
	var p kernelWbPolicy
	if err := inner.Lookup(uint32(0), &p); err != nil {
		return errors.Join(fmt.Errorf("adopt policy: %w", err), inner.Close())
	}
	e.inner, e.generation, e.kept = inner, p.Generation, make(map[uint64]bool)
	for _, provider := range p.Providers[:min(int(p.N_providers), len(p.Providers))] {
		e.kept[provider.Handle] = true
	}
	e.dropCounters(e.kept)
	return e.sortOut()
}

// findInner opens the pinned map whose id the outer one has; nil: no policy was
// ever applied. Pins of others are taken away.
func (e *Engine) findInner(s *state) (*ebpf.Map, error) {
	raw, err := e.objects.Policies.LookupBytes(uint32(0))
	if err != nil {
		return nil, fmt.Errorf("adopt policy: %w", err)
	}
	paths, err := filepath.Glob(s.mapPath("policy_*"))
	if err != nil {
		return nil, err
	}
	var found *ebpf.Map
	for _, path := range paths {
		m, err := ebpf.LoadPinnedMap(path, nil)
		if err != nil {
			return nil, fmt.Errorf("adopt policy: %w", err)
		}
		info, err := m.Info()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("adopt policy: %w", err), m.Close())
		}
		if id, ok := info.ID(); ok && raw != nil && uint32(id) == binary.NativeEndian.Uint32(raw) {
			found = m
			continue
		}
		m.Close()
		os.Remove(path)
	}
	if found == nil && raw != nil {
		return nil, errors.New("adopt policy: the map of the policy in force is not pinned")
	}
	return found, nil
}

// sortOut tells the classes and contexts of the generation in force from
// others, which it deletes. Those of addresses that names led to stay as they
// were when they were told last, until Apply. Whoever adopts applies at once,
// and without them connections would go past a proxy meanwhile. If no policy
// can be applied they are as the rest of the adopted one: in force, and frozen.
func (e *Engine) sortOut() error {
	var (
		class   kernelWbClassKey
		set     kernelWbSet
		context kernelWbContextKey
		bytes   kernelWbContext
		stale   []kernelWbClassKey
	)
	classes := e.objects.Classes.Iterate()
	for classes.Next(&class, &set) {
		if class.Generation == e.generation {
			e.classes = append(e.classes, class)
		} else {
			stale = append(stale, class)
		}
	}
	var staleContexts []kernelWbContextKey
	contexts := e.objects.Contexts.Iterate()
	for contexts.Next(&context, &bytes) {
		if context.Generation == e.generation {
			e.contexts = append(e.contexts, context)
		} else {
			staleContexts = append(staleContexts, context)
		}
	}
	e.dropClasses(stale)
	e.dropContexts(staleContexts)
	return errors.Join(classes.Err(), contexts.Err())
}

// replacePrograms goes in the order of attach: the hooks that hand records
// over before those that redirect.
func (e *Engine) replacePrograms(s *state) error {
	for _, h := range hookNames {
		l, err := link.LoadPinnedLink(s.linkPath(h.name), nil)
		if err != nil {
			return fmt.Errorf("adopt link %s: %w", h.name, err)
		}
		e.hooks = append(e.hooks, l)
		if err := l.Update(h.program(&e.objects)); err != nil {
			return fmt.Errorf("replace program %s: %w", h.name, err)
		}
	}
	return nil
}
