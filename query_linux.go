package waybill

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// As in include/waybill.h; a test compares them with the kernel programs.
const (
	solWaybill = 0x5742

	optRecords     = 1
	optContext     = 2
	optOriginalDst = 3
	optOrigin      = 4
	optState       = 5

	recordsMax  = 1024
	contextMax  = 1024
	sockaddrMax = unix.SizeofSockaddrInet6
	originSize  = 80
	originSize1 = 64 // of the first version, whose kernel side knew no program
	stateSize   = 8
)

// Nothing waits here: the contexts are those of the functions that do on
// Windows.

// queryRecords and queryContext clone: what is kept for as long as a
// connection is to be no longer than it must be.
func queryRecords(_ context.Context, c syscall.Conn) ([]byte, error) {
	b, err := query(c, opQueryRecords, optRecords, make([]byte, recordsMax))
	return slices.Clone(b), err
}

func queryContext(_ context.Context, c syscall.Conn) ([]byte, error) {
	b, err := query(c, opQueryContext, optContext, make([]byte, contextMax))
	return slices.Clone(b), err
}

func originalDestination(c syscall.Conn) (netip.AddrPort, error) {
	b, err := query(c, opQueryDst, optOriginalDst, make([]byte, sockaddrMax))
	if err != nil {
		return netip.AddrPort{}, err
	}
	return decodeSockaddr(b)
}

func queryOrigin(c syscall.Conn) (Origin, error) {
	b, err := query(c, opQueryOrigin, optOrigin, make([]byte, originSize))
	if err != nil {
		return Origin{}, err
	}
	return decodeOrigin(b)
}

func queryState(c syscall.Conn) (State, int, error) {
	b, err := query(c, opQueryState, optState, make([]byte, stateSize))
	if err != nil {
		return 0, 0, err
	}
	return decodeState(b)
}

// query reads one option into buf and returns the part that was filled.
func query(c syscall.Conn, op string, option int, buf []byte) ([]byte, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, opError(op, err)
	}
	var n int
	err = control(raw, func(fd int) (err error) {
		n, err = getsockopt(fd, option, buf)
		return err
	})
	if err != nil {
		return nil, opError(op, err)
	}
	return buf[:n], nil
}

// describe reads what else there is to know of a connection with records.
func describe(c syscall.Conn) (dst netip.AddrPort, origin Origin, err error) {
	if dst, err = originalDestination(c); err != nil {
		return dst, origin, err
	}
	origin, err = queryOrigin(c)
	return dst, origin, err
}

func setRecords(_ context.Context, raw syscall.RawConn, r Records) error {
	return opError(opSetRecords, control(raw, func(fd int) error {
		return unix.SetsockoptString(fd, solWaybill, optRecords, string(r))
	}))
}

// control runs f with the descriptor of a connection, which stays open
// meanwhile, and returns f's error or that of reaching the descriptor.
func control(raw syscall.RawConn, f func(fd int) error) error {
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

// getsockopt returns the length of the answer. x/sys/unix has no call for an
// option of any size.
func getsockopt(fd, option int, buf []byte) (int, error) {
	size := uint32(len(buf))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), solWaybill, uintptr(option),
		uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0, errno
	}
	return int(size), nil
}

// decodeSockaddr reads a struct sockaddr_in or sockaddr_in6.
func decodeSockaddr(b []byte) (netip.AddrPort, error) {
	if len(b) < unix.SizeofSockaddrInet4 {
		return netip.AddrPort{}, opError(opQueryDst, fmt.Errorf("answer of %d bytes is too short", len(b)))
	}
	family, port := binary.NativeEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	switch {
	case family == unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port), nil
	case family == unix.AF_INET6 && len(b) >= unix.SizeofSockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])), port), nil
	}
	return netip.AddrPort{}, opError(opQueryDst, fmt.Errorf("answer of family %d and %d bytes", family, len(b)))
}

// decodeOrigin reads a struct waybill_origin. A later kernel side may append
// fields; the buffer of our size cuts them off. An earlier one has fewer.
func decodeOrigin(b []byte) (Origin, error) {
	if len(b) < originSize1 {
		return Origin{}, opError(opQueryOrigin, fmt.Errorf("answer of %d bytes, want %d", len(b), originSize))
	}
	u32, u64 := binary.NativeEndian.Uint32, binary.NativeEndian.Uint64
	o := Origin{
		PID:         u32(b[0:]),
		TGID:        u32(b[4:]),
		UID:         u32(b[8:]),
		GID:         u32(b[12:]),
		CgroupID:    u64(b[16:]),
		NetNSCookie: u64(b[24:]),
		Start:       time.Duration(u64(b[32:])),
		FlowID:      u64(b[40:]),
		Comm:        unix.ByteSliceToString(b[48:64]),
	}
	if len(b) >= originSize {
		o.ProgramInode, o.ProgramDevice = u64(b[64:]), u32(b[72:])
	}
	return o, nil
}

// decodeState reads a struct waybill_redirect_state.
func decodeState(b []byte) (State, int, error) {
	if len(b) < stateSize {
		return 0, 0, opError(opQueryState, fmt.Errorf("answer of %d bytes, want %d", len(b), stateSize))
	}
	return State(binary.NativeEndian.Uint32(b)), int(binary.NativeEndian.Uint32(b[4:])), nil
}
