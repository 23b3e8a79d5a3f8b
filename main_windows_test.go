package waybill_test

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/windows"

	"github.com/waybill-net/waybill/internal/standin"
)

// The origin's addresses are those of .ci/wine.
const (
	origin4 = "192.0.2.1:8080"
	origin6 = "[2001:db8::1]:8080"
)

func TestMain(m *testing.M) {
	if err := standin.ServeOrigin(); err != nil {
		fmt.Fprintln(os.Stderr, "serve the origin:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// socket is one of our own: a syscall.Conn that package net does not know.
type socket windows.Handle

func newSocket(t *testing.T, kind int, flags uint32) socket {
	t.Helper()
	s, err := windows.WSASocket(windows.AF_INET, int32(kind), 0, nil, 0, flags)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { windows.Closesocket(s) })
	return socket(s)
}

func (s socket) SyscallConn() (syscall.RawConn, error) { return s, nil }
func (s socket) Control(f func(uintptr)) error         { f(uintptr(s)); return nil }
func (s socket) Read(func(uintptr) bool) error         { return syscall.ENOSYS }
func (s socket) Write(func(uintptr) bool) error        { return syscall.ENOSYS }
