package wfp

import "encoding/binary"

// A WSACMSGHDR has a SIZE_T and two INTs before the data, and all of them are
// aligned as a SIZE_T is.
const (
	sizeofPointer = 4 << (^uintptr(0) >> 63)
	sizeofHeader  = sizeofPointer + 8
)

func align(n int) int { return (n + sizeofPointer - 1) &^ (sizeofPointer - 1) }

// Ancillary finds what WFP says beside the first datagram of a flow, in the
// control buffer of WSARecvMsg. What it returns is a part of that.
func Ancillary(control []byte) (records, context []byte) {
	for len(control) >= sizeofHeader {
		n := length(control)
		if n < sizeofHeader || n > uint64(len(control)) {
			return records, context
		}
		level := binary.LittleEndian.Uint32(control[sizeofPointer:])
		if level == LevelIP || level == LevelIPv6 {
			switch binary.LittleEndian.Uint32(control[sizeofPointer+4:]) {
			case RedirectRecords:
				records = control[sizeofHeader:n]
			case RedirectContext:
				context = control[sizeofHeader:n]
			}
		}
		control = control[min(align(int(n)), len(control)):]
	}
	return records, context
}

func length(b []byte) uint64 {
	if sizeofPointer == 4 {
		return uint64(binary.LittleEndian.Uint32(b))
	}
	return binary.LittleEndian.Uint64(b)
}

// AncillaryRecords is the control buffer of WSASendMsg by which the first
// datagram of a flow takes records on, from a socket of one family.
func AncillaryRecords(records []byte, v6 bool) []byte {
	control := aligned(align(sizeofHeader + len(records)))
	level := uint32(LevelIP)
	if v6 {
		level = LevelIPv6
	}
	binary.LittleEndian.PutUint32(control, uint32(sizeofHeader+len(records)))
	binary.LittleEndian.PutUint32(control[sizeofPointer:], level)
	binary.LittleEndian.PutUint32(control[sizeofPointer+4:], RedirectRecords)
	copy(control[sizeofHeader:], records)
	return control
}
