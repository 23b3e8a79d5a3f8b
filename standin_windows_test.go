package waybill_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/windows"
)

// The tests of this package run under Wine, with a stand-in for ws2_32.dll that
// answers as Windows is documented to: testdata/ws2_32/standin.h has its own
// codes, and .ci/wine runs them. Connections to originPort are redirected to the
// proxies on loopback, in order.
const (
	originPort = "8080"
	origin4    = "192.0.2.1:" + originPort
	origin6    = "[2001:db8::1]:" + originPort
)

const (
	standInPolicy  = 0x9800F001
	standInArm     = 0x9800F002
	standInRead    = 0x9800F003
	standInCount   = 0x9800F004
	standInPort    = 0x9800F005
	standInPending = 0x9800F006
)

// policy is struct policy of the stand-in.
type policy struct {
	Port, Providers uint16
	Proxies         [4]uint16
	Padding, Plain  uint32
}

// armed is struct armed of the stand-in, without the answer.
type armed struct {
	Code, Error, Returned, Pending, Delay, ShortError, ShortReturns, Size uint32
}

const (
	shortSize = iota
	shortZero
	shortPart

	never = windows.INFINITE
)

func TestMain(m *testing.M) {
	if err := serveOrigin(); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// serveOrigin answers "pong" to whoever has finished, and to datagrams.
func serveOrigin() error {
	c, err := net.ListenPacket("udp", ":"+originPort)
	if err != nil {
		return err
	}
	go func() {
		buf := make([]byte, 64)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			c.WriteTo(append([]byte("pong "), buf[:n]...), from)
		}
	}()
	l, err := net.Listen("tcp", ":"+originPort)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(io.Discard, c)
				io.WriteString(c, "pong")
			}()
		}
	}()
	return nil
}

// ioctl makes a call of the stand-in's own.
func ioctl(t *testing.T, c syscall.Conn, code uint32, in any, out []byte) int {
	t.Helper()
	var b bytes.Buffer
	if in != nil {
		if err := binary.Write(&b, binary.LittleEndian, in); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n uint32
	var ioctlErr error
	err = raw.Control(func(s uintptr) {
		ioctlErr = windows.WSAIoctl(windows.Handle(s), code, unsafe.SliceData(b.Bytes()), uint32(b.Len()),
			unsafe.SliceData(out), uint32(len(out)), &n, nil, 0)
	})
	if err != nil || ioctlErr != nil {
		t.Fatalf("stand-in: code %#x: %v, %v", code, err, ioctlErr)
	}
	return int(n)
}

// anySocket is for codes that mean no socket.
func anySocket(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// redirectTo puts a policy in force for one test.
func redirectTo(t *testing.T, p policy, proxies ...uint16) {
	t.Helper()
	p.Port, p.Providers = 8080, uint16(copy(p.Proxies[:], proxies))
	s := anySocket(t)
	ioctl(t, s, standInPolicy, p, nil)
	t.Cleanup(func() { ioctl(t, anySocket(t), standInPolicy, policy{}, nil) })
}

func count(t *testing.T, code uint32) uint32 {
	t.Helper()
	out := make([]byte, 4)
	ioctl(t, anySocket(t), code, nil, out)
	return binary.LittleEndian.Uint32(out)
}

// application connects, says "ping", and returns what it hears when the
// returned function is called.
func application(t *testing.T, address string) func() string {
	t.Helper()
	heard := make(chan string, 1)
	go func() {
		defer close(heard)
		c, err := net.Dial("tcp", address)
		if err != nil {
			heard <- err.Error()
			return
		}
		defer c.Close()
		io.WriteString(c, "ping")
		c.(*net.TCPConn).CloseWrite()
		b, _ := io.ReadAll(c)
		heard <- string(b)
	}()
	return func() string { return <-heard }
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
