// Package engine puts a policy into the kernel: it loads the programs of
// bpf/, attaches them to a cgroup, and keeps them supplied with state. It is
// the only package that imports cilium/ebpf.
package engine

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/waybill-net/waybill/internal/policy"
)

// Options for [Open]. Only Scope must be given.
type Options struct {
	// Scope is the directory of the cgroup (v2) whose sockets are covered:
	// those that its processes, and the processes below it, create.
	Scope string

	// InFlight bounds the connections that are at once between connect() and
	// the proxy's end of the handshake. Default 8192. When it is reached,
	// providers count as down.
	InFlight int
}

const (
	defaultInFlight = 8192
	// Room beyond the limit, for tasks that are preempted between the check
	// in the connect hook and the insertion in TCP_CONNECT_CB.
	inFlightMargin = 128
)

// Engine is the kernel side of waybill for one scope. Its methods may be
// called from several goroutines. When the process ends, however it ends, the
// kernel detaches and frees everything.
type Engine struct {
	scope    string
	objects  kernelObjects
	innerMap *ebpf.MapSpec // of the map that holds one policy
	hooks    []link.Link   // in the order in which they are attached

	mu         sync.Mutex // also keeps Close away from the objects in use
	generation uint32
	policy     policy.Policy // in force
	ids        policy.Identities
	table      *policy.Table            // of policy and ids; nil before the first Apply
	inner      *ebpf.Map                // holds table in the kernel
	classes    []kernelWbClassKey       // of table, in the kernel
	tables     map[uint32]*policy.Table // by generation, the latest ones
	names      map[uint64]string        // of providers, by handle
}

// Open loads the programs and attaches them to the scope. Nothing is
// redirected until Apply. An error wraps *FeatureError if the kernel lacks
// something, and fs.ErrPermission if the caller lacks a privilege.
func Open(opts Options) (*Engine, error) {
	if opts.InFlight == 0 {
		opts.InFlight = defaultInFlight
	}
	if opts.InFlight < 0 {
		return nil, fmt.Errorf("open engine: in-flight limit %d is negative", opts.InFlight)
	}
	e := &Engine{scope: opts.Scope, names: make(map[uint64]string), tables: make(map[uint32]*policy.Table)}
	if err := e.load(opts); err != nil {
		return nil, explainLoadError(err)
	}
	if err := e.attach(); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

func (e *Engine) load(opts Options) error {
	spec, err := loadKernel()
	if err != nil {
		return err
	}
	e.innerMap = spec.Maps[kernelMapPolicies].InnerMap
	entries := uint32(opts.InFlight + inFlightMargin)
	spec.Maps[kernelMapInflight].MaxEntries = entries
	spec.Maps[kernelMapInflightContexts].MaxEntries = entries
	if err := spec.Variables[kernelVarInflightLimit].Set(uint32(opts.InFlight)); err != nil {
		return err
	}
	if err := spec.Variables[kernelVarPageSize].Set(uint32(os.Getpagesize())); err != nil {
		return err
	}
	if err := spec.LoadAndAssign(&e.objects, nil); err != nil {
		return err
	}
	if err := e.makeKey(); err != nil {
		return errors.Join(err, e.objects.Close())
	}
	return nil
}

// makeKey seals this engine's blobs with a key that exists nowhere else.
func (e *Engine) makeKey() error {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand
	key := kernelWbKey{K: [2]uint64{binary.LittleEndian.Uint64(b[:8]), binary.LittleEndian.Uint64(b[8:])}}
	return e.objects.Keys.Put(uint32(0), &key)
}

// attach attaches connect last: no connection is redirected before the hooks
// that hand its records over are in place.
func (e *Engine) attach() error {
	hooks := []struct {
		name    string
		attach  ebpf.AttachType
		program *ebpf.Program
	}{
		{"sockops", ebpf.AttachCGroupSockOps, e.objects.WbSockops},
		{"getsockopt", ebpf.AttachCGroupGetsockopt, e.objects.WbGetsockopt},
		{"setsockopt", ebpf.AttachCGroupSetsockopt, e.objects.WbSetsockopt},
		{"getpeername4", ebpf.AttachCgroupInet4GetPeername, e.objects.WbGetpeername4},
		{"getpeername6", ebpf.AttachCgroupInet6GetPeername, e.objects.WbGetpeername6},
		{"connect4", ebpf.AttachCGroupInet4Connect, e.objects.WbConnect4},
		{"connect6", ebpf.AttachCGroupInet6Connect, e.objects.WbConnect6},
	}
	for _, h := range hooks {
		l, err := link.AttachCgroup(link.CgroupOptions{Path: e.scope, Attach: h.attach, Program: h.program})
		if err != nil {
			return explainAttachError(h.name, e.scope, err)
		}
		e.hooks = append(e.hooks, l)
	}
	return nil
}

// drainTimeout bounds the wait for connections in mid-handshake, in Close.
const drainTimeout = 200 * time.Millisecond

// Close detaches every program and frees every map. Connections that are
// redirected already stay with their proxies; their records end here.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var errs []error
	// The connect hooks first, and then a moment for what they have sent on
	// its way: without the other hooks it would arrive without records.
	for i := len(e.hooks) - 1; i >= 0; i-- {
		errs = append(errs, e.hooks[i].Close())
		if i == len(e.hooks)-2 {
			e.drain()
		}
	}
	e.hooks = nil
	if e.inner != nil {
		errs = append(errs, e.inner.Close())
		e.inner = nil
	}
	return errors.Join(append(errs, e.objects.Close())...)
}

func (e *Engine) drain() {
	for deadline := time.Now().Add(drainTimeout); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if n, err := e.inFlight(); err != nil || n == 0 {
			return
		}
	}
}
