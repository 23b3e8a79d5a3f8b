package wfp

import (
	"encoding/binary"
	"net/netip"
	"strconv"
)

// As Windows numbers them.
const (
	familyInet  = 2
	familyInet6 = 23
)

// SizeofStorage is that of a SOCKADDR_STORAGE.
const SizeofStorage = 128

// Sockaddr reads a SOCKADDR_IN or SOCKADDR_IN6, in a buffer that may be longer.
func Sockaddr(b []byte) (a netip.AddrPort, ok bool) {
	if len(b) < 16 {
		return a, false
	}
	port := binary.BigEndian.Uint16(b[2:])
	switch family := binary.LittleEndian.Uint16(b); {
	case family == familyInet:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port), true
	case family == familyInet6 && len(b) >= 28:
		addr := netip.AddrFrom16([16]byte(b[8:24])).Unmap()
		if scope := binary.LittleEndian.Uint32(b[24:]); scope != 0 && addr.Is6() {
			addr = addr.WithZone(strconv.FormatUint(uint64(scope), 10))
		}
		return netip.AddrPortFrom(addr, port), true
	}
	return a, false
}

// ContextDestination reads the original destination from a context that has
// the form of Microsoft's sample: one or two SOCKADDR_STORAGE, of which the
// first is the remote address that the application asked for. What a context
// holds is its redirector's affair; another form is not ok.
func ContextDestination(context []byte) (a netip.AddrPort, ok bool) {
	if n := len(context); n != SizeofStorage && n != 2*SizeofStorage {
		return a, false
	}
	a, ok = Sockaddr(context)
	return a, ok && a.Port() != 0 && !a.Addr().IsUnspecified()
}
