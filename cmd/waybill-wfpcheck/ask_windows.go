package main

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/waybill-net/waybill/internal/wfp"
)

// answer is what one call of WSAIoctl did.
type answer struct {
	err      error
	returned uint32
	later    bool // by way of WSA_IO_PENDING
	never    bool // and then it did not come to an end within a second
	out      []byte
}

func (a answer) String() string {
	s := "success"
	if errno, ok := a.err.(windows.Errno); ok {
		s = fmt.Sprintf("error %d", uint32(errno))
	} else if a.err != nil {
		s = a.err.Error()
	}
	s += fmt.Sprintf(", %d returned", a.returned)
	if a.later {
		s += ", pending first"
	}
	if a.never {
		s += ", never over"
	}
	return s
}

// ask makes a call without OVERLAPPED. room is -1 for no buffer.
func ask(s windows.Handle, code wfp.Code, in []byte, room int) (a answer) {
	a.out = buffer(room)
	a.err = windows.WSAIoctl(s, uint32(code), unsafe.SliceData(in), uint32(len(in)), unsafe.SliceData(a.out), uint32(len(a.out)), &a.returned, nil, 0)
	return a
}

// abandoned requests still have their memory.
var abandoned []any

// askOverlapped makes a call with OVERLAPPED, whose event keeps the completion
// from a port.
func askOverlapped(s windows.Handle, code wfp.Code, in []byte, room int) (a answer) {
	event, err := windows.CreateEvent(nil, 1, 0, nil)
	if err != nil {
		return answer{err: err}
	}
	o := &windows.Overlapped{HEvent: event | 1}
	a.out = buffer(room)
	a.err = windows.WSAIoctl(s, uint32(code), unsafe.SliceData(in), uint32(len(in)), unsafe.SliceData(a.out), uint32(len(a.out)), &a.returned, o, 0)
	if a.err != wfp.ErrIOPending {
		windows.CloseHandle(event)
		return a
	}
	a.later = true
	if e, err := windows.WaitForSingleObject(event, 1000); err != nil || e != windows.WAIT_OBJECT_0 {
		a.never = true
		windows.CancelIoEx(s, o)
		abandoned = append(abandoned, o, in, a.out)
	}
	var flags uint32
	a.err = windows.WSAGetOverlappedResult(s, o, &a.returned, false, &flags)
	return a
}

func buffer(room int) []byte {
	if room < 0 {
		return nil
	}
	words := make([]uint64, room/8+1) // aligned, and never without an address
	return unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), room)
}

// on calls f with the socket of a connection or a listener.
func on(c syscall.Conn, f func(windows.Handle)) {
	raw, err := c.SyscallConn()
	if err == nil {
		raw.Control(func(s uintptr) { f(windows.Handle(s)) })
	}
}
