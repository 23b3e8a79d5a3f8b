// Package standin talks to the stand-in for ws2_32.dll with which the tests run
// under Wine: testdata/ws2_32/standin.h has its codes, and .ci/wine runs them.
package standin

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Codes.
const (
	policyCode = 0x9800F001
	armCode    = 0x9800F002
	readCode   = 0x9800F003
	countCode  = 0x9800F004
	pendCode   = 0x9800F005
)

// OriginPort is where connections are redirected.
const OriginPort = 8080

// Policy is struct policy. Providers are set by Redirect.
type Policy struct {
	Port, Providers uint16
	Proxies         [4]uint16
	Padding         uint32 // makes records longer
	Plain           uint32 // 1: no context, and SO_ORIGINAL_DST instead
}

// Armed is struct armed, without the answer: how a socket answers a code.
type Armed struct {
	Code, Error, Returned, Pending, Delay, ShortError, ShortReturns, Deaf, Size uint32
}

// Armed.ShortReturns, and Armed.Delay.
const (
	ShortSize = iota
	ShortZero
	ShortPart

	Never = windows.INFINITE
)

// Redirect puts a policy in force for one test: connections and datagrams to
// OriginPort are redirected to proxies at these ports of loopback, in order.
func Redirect(t testing.TB, p Policy, proxies ...uint16) {
	t.Helper()
	p.Port, p.Providers = OriginPort, uint16(copy(p.Proxies[:], proxies))
	ioctl(t, anySocket(t), policyCode, p, nil)
	t.Cleanup(func() { ioctl(t, anySocket(t), policyCode, Policy{}, nil) })
}

// Arm makes a socket answer in a certain way.
func Arm(t testing.TB, c syscall.Conn, a Armed, answer ...byte) {
	t.Helper()
	a.Size = uint32(len(answer))
	ioctl(t, c, armCode, a, answer)
}

// SetOn returns the records that were set on a socket.
func SetOn(t testing.TB, c syscall.Conn) []byte {
	t.Helper()
	out := make([]byte, 80<<10)
	return out[:call(t, c, readCode, nil, out)]
}

// Redirects counts those since Redirect was called.
func Redirects(t testing.TB) int { t.Helper(); return count(t, countCode) }

// Pending counts requests of this process.
func Pending(t testing.TB) int { t.Helper(); return count(t, pendCode) }

func count(t testing.TB, code uint32) int {
	t.Helper()
	out := make([]byte, 4)
	call(t, anySocket(t), code, nil, out)
	return int(binary.LittleEndian.Uint32(out))
}

func ioctl(t testing.TB, c syscall.Conn, code uint32, in any, more []byte) {
	t.Helper()
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, in); err != nil {
		t.Fatal(err)
	}
	b.Write(more)
	call(t, c, code, b.Bytes(), nil)
}

func call(t testing.TB, c syscall.Conn, code uint32, in, out []byte) int {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n uint32
	var callErr error
	err = raw.Control(func(s uintptr) {
		callErr = windows.WSAIoctl(windows.Handle(s), code, unsafe.SliceData(in), uint32(len(in)), unsafe.SliceData(out), uint32(len(out)), &n, nil, 0)
	})
	if err != nil || callErr != nil {
		t.Fatalf("stand-in: code %#x: %v, %v", code, err, callErr)
	}
	return int(n)
}

// anySocket is for codes that mean no socket.
func anySocket(t testing.TB) *net.TCPListener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// ServeOrigin answers "pong" to whoever has finished, and to datagrams.
func ServeOrigin() error {
	c, err := net.ListenUDP("udp", &net.UDPAddr{Port: OriginPort})
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
	l, err := net.ListenTCP("tcp", &net.TCPAddr{Port: OriginPort})
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

// Application connects, says "ping", and returns what it hears, or an error,
// when the returned function is called.
func Application(address string) func() string {
	heard := make(chan string, 1)
	go func() {
		c, err := net.Dial("tcp", address)
		if err != nil {
			heard <- err.Error()
			return
		}
		defer c.Close()
		io.WriteString(c, "ping")
		c.(*net.TCPConn).CloseWrite()
		b, err := io.ReadAll(c)
		if err != nil {
			heard <- err.Error()
			return
		}
		heard <- string(b)
	}()
	return func() string { return <-heard }
}
