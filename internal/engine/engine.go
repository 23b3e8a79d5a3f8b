//go:build linux

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

	// State is a directory that Open makes in a BPF file system, to pin
	// programs and maps in. They go on working when this process ends, and
	// the next Open with the same State adopts them. Empty: everything ends
	// with this process.
	State string

	// Version is written into State, for the messages of other versions.
	Version string

	// InFlight bounds the connections that are at once between connect() and
	// the proxy's end of the handshake. Default 8192. When it is reached,
	// providers count as down. State that is adopted keeps its bound.
	InFlight int
}

const (
	defaultInFlight = 8192
	// Room beyond the limit, for tasks that are preempted between the check
	// in the connect hook and the insertion in TCP_CONNECT_CB.
	inFlightMargin = 128
)

// Engine is the kernel side of waybill for one scope. Its methods may be
// called from several goroutines. Without state, when the process ends,
// however it ends, the kernel detaches and frees everything.
type Engine struct {
	scope     string
	state     *state // nil: nothing is pinned
	adopted   bool
	objects   kernelObjects
	maps      map[string]*ebpf.Map // what can be pinned: those of objects, and variables
	variables *ebpf.Map            // nil if adopted
	innerMap  *ebpf.MapSpec        // of the map that holds one policy
	hooks     []link.Link          // as hookNames

	retiring chan struct{} // an element for each old policy that waits for its end
	retired  chan struct{} // closed when the newest of them has ended; nil: there was none

	mu         sync.Mutex // also keeps Close away from the objects in use
	generation uint32
	policy     policy.Policy // in force
	ids        policy.Identities
	table      *policy.Table        // of policy and ids; nil before the first Apply
	inner      *ebpf.Map            // holds table in the kernel
	classes    []kernelWbClassKey   // of table, in the kernel
	contexts   []kernelWbContextKey // likewise
	known      known
	kept       map[uint64]bool // handles of its providers, which have counters
	names      names           // has a lock of its own: events are read meanwhile
}

// Open loads the programs and attaches them to the scope, or adopts those
// that are pinned in opts.State. Nothing is redirected until Apply; of adopted
// programs, until the next Apply what their policy says.
//
// An error wraps *FeatureError if the kernel lacks something, fs.ErrPermission
// if the caller lacks a privilege, ErrInUse if another process has the state,
// and *VersionError if the state is of a version that this one can not adopt.
func Open(opts Options) (*Engine, error) {
	if opts.InFlight == 0 {
		opts.InFlight = defaultInFlight
	}
	if opts.InFlight < 0 {
		return nil, fmt.Errorf("open engine: in-flight limit %d is negative", opts.InFlight)
	}
	if most := len(kernelWbMeta{}.Scope) - 1; len(opts.Scope) > most {
		return nil, fmt.Errorf("open engine: the path of the scope has %d bytes, at most %d", len(opts.Scope), most)
	}
	spec, err := prepare(opts)
	if err != nil {
		return nil, err
	}
	e := &Engine{
		retiring: make(chan struct{}, maxRetiring),
		scope:    opts.Scope,
		known:    newKnown(),
		innerMap: spec.Maps[kernelMapPolicies].InnerMap,
	}
	if opts.State == "" {
		err = e.create(spec)
	} else {
		err = e.openPinned(spec, opts)
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

// Adopted reports whether Open found state and took it over.
func (e *Engine) Adopted() bool { return e.adopted }

// prepare reads the programs and sets what is decided at load time.
func prepare(opts Options) (*ebpf.CollectionSpec, error) {
	spec, err := loadKernel()
	if err != nil {
		return nil, err
	}
	entries := uint32(opts.InFlight + inFlightMargin)
	spec.Maps[kernelMapInflight].MaxEntries = entries
	spec.Maps[kernelMapInflightContexts].MaxEntries = entries
	if err := spec.Variables[kernelVarInflightLimit].Set(uint32(opts.InFlight)); err != nil {
		return nil, err
	}
	return spec, spec.Variables[kernelVarPageSize].Set(uint32(os.Getpagesize()))
}

// create loads the programs with new maps and attaches them.
func (e *Engine) create(spec *ebpf.CollectionSpec) error {
	if err := e.load(spec); err != nil {
		return explainLoadError(err)
	}
	if err := e.makeKey(); err != nil {
		return errors.Join(err, e.objects.Close())
	}
	if err := e.attach(); err != nil {
		return errors.Join(err, e.closeHooks(), e.objects.Close())
	}
	return nil
}

// load keeps hold of all maps: those of the programs' variables are not in
// objects, but are part of what is pinned.
func (e *Engine) load(spec *ebpf.CollectionSpec) error {
	c, err := ebpf.NewCollection(spec)
	if err != nil {
		return err
	}
	defer c.Close() // what is not assigned
	e.maps = make(map[string]*ebpf.Map)
	for name, m := range c.Maps {
		if isKept(name) {
			e.maps[name] = m
		}
	}
	if err := c.Assign(&e.objects); err != nil {
		return err
	}
	e.variables = c.Maps[variables]
	delete(c.Maps, variables)
	return nil
}

// variables is the map of the programs' variables that are not constant.
const variables = ".bss"

// makeKey seals this engine's blobs with a key that exists nowhere else.
func (e *Engine) makeKey() error {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand
	key := kernelWbKey{K: [2]uint64{binary.LittleEndian.Uint64(b[:8]), binary.LittleEndian.Uint64(b[8:])}}
	return e.objects.Keys.Put(uint32(0), &key)
}

// hook is one place in the kernel that a program is attached to.
type hook struct {
	name    string
	attach  ebpf.AttachType
	program func(*kernelObjects) *ebpf.Program
}

// hookNames has connect last: no connection is redirected before the hooks
// that hand its records over are in place.
var hookNames = []hook{
	{"sockops", ebpf.AttachCGroupSockOps, func(o *kernelObjects) *ebpf.Program { return o.WbSockops }},
	{"getsockopt", ebpf.AttachCGroupGetsockopt, func(o *kernelObjects) *ebpf.Program { return o.WbGetsockopt }},
	{"setsockopt", ebpf.AttachCGroupSetsockopt, func(o *kernelObjects) *ebpf.Program { return o.WbSetsockopt }},
	{"getpeername4", ebpf.AttachCgroupInet4GetPeername, func(o *kernelObjects) *ebpf.Program { return o.WbGetpeername4 }},
	{"getpeername6", ebpf.AttachCgroupInet6GetPeername, func(o *kernelObjects) *ebpf.Program { return o.WbGetpeername6 }},
	{"getsockname4", ebpf.AttachCgroupInet4GetSockname, func(o *kernelObjects) *ebpf.Program { return o.WbGetsockname4 }},
	{"getsockname6", ebpf.AttachCgroupInet6GetSockname, func(o *kernelObjects) *ebpf.Program { return o.WbGetsockname6 }},
	{"bind4", ebpf.AttachCGroupInet4Bind, func(o *kernelObjects) *ebpf.Program { return o.WbBind4 }},
	{"bind6", ebpf.AttachCGroupInet6Bind, func(o *kernelObjects) *ebpf.Program { return o.WbBind6 }},
	{"sock_release", ebpf.AttachCgroupInetSockRelease, func(o *kernelObjects) *ebpf.Program { return o.WbSockRelease }},
	{"recvmsg4", ebpf.AttachCGroupUDP4Recvmsg, func(o *kernelObjects) *ebpf.Program { return o.WbRecvmsg4 }},
	{"recvmsg6", ebpf.AttachCGroupUDP6Recvmsg, func(o *kernelObjects) *ebpf.Program { return o.WbRecvmsg6 }},
	{"sendmsg4", ebpf.AttachCGroupUDP4Sendmsg, func(o *kernelObjects) *ebpf.Program { return o.WbSendmsg4 }},
	{"sendmsg6", ebpf.AttachCGroupUDP6Sendmsg, func(o *kernelObjects) *ebpf.Program { return o.WbSendmsg6 }},
	{"connect4", ebpf.AttachCGroupInet4Connect, func(o *kernelObjects) *ebpf.Program { return o.WbConnect4 }},
	{"connect6", ebpf.AttachCGroupInet6Connect, func(o *kernelObjects) *ebpf.Program { return o.WbConnect6 }},
}

func (e *Engine) attach() error {
	for _, h := range hookNames {
		l, err := link.AttachCgroup(link.CgroupOptions{Path: e.scope, Attach: h.attach, Program: h.program(&e.objects)})
		if err != nil {
			return explainAttachError(h.name, e.scope, err)
		}
		e.hooks = append(e.hooks, l)
	}
	return nil
}

// drainTimeout bounds the wait for connections in mid-handshake, in Close.
const drainTimeout = 200 * time.Millisecond

// Close lets go of the kernel side. What is pinned goes on working. Without
// state every program is detached and every map freed: connections that are
// redirected already stay with their proxies; their records end here.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.settle()
	errs := []error{e.closeHooks()}
	if e.inner != nil {
		errs = append(errs, e.inner.Close())
		e.inner = nil
	}
	errs = append(errs, e.objects.Close())
	if e.variables != nil {
		errs = append(errs, e.variables.Close())
	}
	if e.state != nil {
		errs = append(errs, e.state.close())
		e.state = nil
	}
	return errors.Join(errs...)
}

// closeHooks closes the connect hooks first, and then waits a moment for what
// they have sent on its way: without the other hooks it would arrive without
// records.
func (e *Engine) closeHooks() error {
	var errs []error
	for i := len(e.hooks) - 1; i >= 0; i-- {
		errs = append(errs, e.hooks[i].Close())
		if i == len(hookNames)-2 && e.state == nil {
			drain(e.objects.Inflight)
		}
	}
	e.hooks = nil
	return errors.Join(errs...)
}
