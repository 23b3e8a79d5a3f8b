//go:build linux

package engine

import (
	"encoding/binary"
	"os"
	"time"

	"github.com/cilium/ebpf"
)

// maxRetiring bounds the old policies that wait for their end: each holds its
// memory until then.
const maxRetiring = 8

// generationMaps is what belongs to one policy alone.
type generationMaps struct {
	inner    *ebpf.Map
	pin      string // of inner; empty: none
	classes  []kernelWbClassKey
	contexts []kernelWbContextKey
}

// publish puts the inner map in force and returns as soon as it is: every
// connect() that begins now sees the new policy. What belonged to the old one
// goes when no program uses it any more. The kernel waits for that in the same
// system call, a grace period of 10 to 30 ms, so that is made by a goroutine of
// its own, and changes of policy need not wait for each other.
func (e *Engine) publish(inner *ebpf.Map, old generationMaps) error {
	info, err := inner.Info()
	if err != nil {
		return err
	}
	id, _ := info.ID()
	e.retiring <- struct{}{}
	put := make(chan error, 1)
	before, done := e.retired, make(chan struct{})
	e.retired = done
	go e.exchange(inner, old, put, before, done)
	for {
		select {
		case err := <-put:
			return err
		case <-time.After(50 * time.Microsecond):
		}
		raw, err := e.objects.Policies.LookupBytes(uint32(0))
		if err != nil {
			return <-put // then we wait as well
		}
		if len(raw) == 4 && ebpf.MapID(binary.NativeEndian.Uint32(raw)) == id {
			return nil
		}
	}
}

// exchange answers on put when no program uses the old policy any more, and
// then retires it. before is closed when that is done for the policy before
// it: until then another call may still hold the old one's descriptor.
func (e *Engine) exchange(inner *ebpf.Map, old generationMaps, put chan<- error, before <-chan struct{}, done chan<- struct{}) {
	err := e.objects.Policies.Put(uint32(0), inner)
	put <- err
	if before != nil {
		<-before
	}
	if err == nil {
		e.retire(old)
	}
	close(done)
	<-e.retiring
}

// retire takes away what only an old policy needed. An error here would leave
// a few bytes behind until Close, or until state is adopted.
func (e *Engine) retire(old generationMaps) {
	e.dropClasses(old.classes)
	e.dropContexts(old.contexts)
	if old.pin != "" {
		os.Remove(old.pin)
	}
	if old.inner != nil {
		old.inner.Close()
	}
}

// settle waits until every old policy has been retired.
func (e *Engine) settle() {
	for range maxRetiring {
		e.retiring <- struct{}{}
	}
	for range maxRetiring {
		<-e.retiring
	}
}
