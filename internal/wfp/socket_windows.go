package wfp

import (
	"context"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Handle is a socket of Winsock.
type Handle windows.Handle

// Begin may be called on a socket that is overlapped or not: Winsock ignores
// the OVERLAPPED of one that is not, and is then done when it returns.
func (h Handle) Begin(code Code, in, out []byte) (int, Pending, error) {
	p, err := newPending(h, in, out)
	if err != nil {
		return 0, nil, err
	}
	err = windows.WSAIoctl(windows.Handle(h), uint32(code), unsafe.SliceData(in), uint32(len(in)),
		unsafe.SliceData(out), uint32(len(out)), &p.returned, &p.overlapped, 0)
	if err == ErrIOPending {
		return 0, p, nil
	}
	n := int(p.returned)
	p.free()
	return n, nil, err
}

// pending is a request that is going on, and all that the system may write to.
type pending struct {
	socket     Handle
	overlapped windows.Overlapped
	returned   uint32
	event      windows.Handle
	pins       runtime.Pinner
}

func newPending(h Handle, in, out []byte) (*pending, error) {
	event, err := windows.CreateEvent(nil, 1, 0, nil)
	if err != nil {
		return nil, err
	}
	p := &pending{socket: h, event: event}
	// A socket of package net belongs to the runtime's completion port. There
	// the runtime looks behind the OVERLAPPED for what its own ones have, in
	// memory that is not there, or by then somebody else's. The lowest bit of
	// the event keeps the completion from that port: see
	// GetQueuedCompletionStatus.
	p.overlapped.HEvent = event | 1
	p.pins.Pin(p)
	if len(in) > 0 {
		p.pins.Pin(unsafe.SliceData(in))
	}
	if len(out) > 0 {
		p.pins.Pin(unsafe.SliceData(out))
	}
	return p, nil
}

// Wait holds a thread meanwhile. A request is rarely pending, and not for long.
func (p *pending) Wait(ctx context.Context) bool {
	stop, err := windows.CreateEvent(nil, 1, 0, nil)
	if err != nil {
		return false
	}
	defer windows.CloseHandle(stop)
	told := make(chan struct{})
	unwatch := context.AfterFunc(ctx, func() {
		windows.SetEvent(stop)
		close(told)
	})
	first, err := windows.WaitForMultipleObjects([]windows.Handle{p.event, stop}, false, windows.INFINITE)
	if !unwatch() {
		<-told // it still uses the handle
	}
	return err == nil && first == windows.WAIT_OBJECT_0
}

func (p *pending) Cancel() { windows.CancelIoEx(windows.Handle(p.socket), &p.overlapped) }

func (p *pending) Result() (int, error) {
	var n, flags uint32
	err := windows.WSAGetOverlappedResult(windows.Handle(p.socket), &p.overlapped, &n, false, &flags)
	return int(n), err
}

// abandoned requests are not over, and nobody waits for them any more. Their
// memory is the system's.
var abandoned struct {
	mu   sync.Mutex
	list []*pending
}

func (p *pending) Release() {
	if _, err := p.Result(); err == ErrIOIncomplete {
		abandoned.mu.Lock()
		defer abandoned.mu.Unlock()
		abandoned.list = append(abandoned.list, p)
		return
	}
	p.free()
}

func (p *pending) free() {
	p.pins.Unpin()
	windows.CloseHandle(p.event)
}
