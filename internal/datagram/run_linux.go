package datagram

import (
	"net/netip"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// What the kernel sends with one UDP_SEGMENT: 64 datagrams before Linux
	// 6.9, and no more bytes than one datagram can have.
	maxSegments = 64
	maxTogether = 65000

	sendControlSize = 48 // CMSG_SPACE of an int, for TOS, and of a uint16, for UDP_SEGMENT
)

// run is datagrams that one message sends: one, or several of the same length,
// of which the last may be shorter.
type run struct {
	first, end int // among the iovecs
	segment    int // the length of all but the last
	n, bytes   int
	closed     bool // by a shorter one
	tos        uint8
}

// takes reports whether a datagram can go with the run.
func (r *run) takes(data []byte, tos uint8, unsegmented int) bool {
	return !r.closed && r.tos == tos && r.segment < unsegmented &&
		len(data) > 0 && len(data) <= r.segment &&
		r.n < maxSegments && r.bytes+len(data) <= maxTogether
}

// sender is what one call of Send needs of memory.
type sender struct {
	runs     []run
	iovecs   []unix.Iovec
	headers  []mmsghdr
	controls []byte
	name     unix.RawSockaddrInet6
	nameLen  uint32
	ipv4     bool

	socket *Socket
	failed func(error)
	send   func(fd uintptr) // sendTo, made once: it would be made for each call
}

var senders = sync.Pool{New: func() any { return newSender() }}

func newSender() *sender {
	b := &sender{}
	b.send = b.sendTo
	return b
}

// gather makes runs of the messages.
func (b *sender) gather(messages []Message, unsegmented int) {
	b.runs, b.iovecs = b.runs[:0], b.iovecs[:0]
	for _, m := range messages {
		b.addAll(m, unsegmented)
	}
}

func (b *sender) addAll(m Message, unsegmented int) {
	for more := true; more; {
		var first Message
		first, m, more = m.Cut()
		b.add(first.Data, first.TOS, unsegmented)
	}
}

func (b *sender) add(data []byte, tos uint8, unsegmented int) {
	if len(b.runs) == 0 || !b.runs[len(b.runs)-1].takes(data, tos, unsegmented) {
		b.runs = append(b.runs, run{
			first: len(b.iovecs), end: len(b.iovecs) + 1, segment: len(data), n: 1, bytes: len(data), tos: tos,
		})
		b.iovecs = append(b.iovecs, iovec(data))
		return
	}
	r := &b.runs[len(b.runs)-1]
	r.n++
	r.bytes += len(data)
	r.closed = len(data) < r.segment
	if last := &b.iovecs[r.end-1]; follows(last, data) {
		last.SetLen(int(last.Len) + len(data))
		return
	}
	b.iovecs = append(b.iovecs, iovec(data))
	r.end++
}

func iovec(data []byte) unix.Iovec {
	v := unix.Iovec{Base: unsafe.SliceData(data)}
	v.SetLen(len(data))
	return v
}

// follows reports whether data lies right behind v, as the datagrams of one
// message do.
func follows(v *unix.Iovec, data []byte) bool {
	return uintptr(unsafe.Pointer(v.Base))+uintptr(v.Len) == uintptr(unsafe.Pointer(unsafe.SliceData(data)))
}

// prepare writes what sendmmsg() is given.
func (b *sender) prepare(to netip.AddrPort, v6, ipv4 bool) {
	b.nameLen, b.ipv4 = 0, ipv4
	if to.IsValid() {
		b.nameLen = setAddrPort(&b.name, to, v6)
	}
	b.writeHeaders()
}

func (b *sender) writeHeaders() {
	if need := len(b.runs) * sendControlSize; len(b.controls) < need {
		b.controls = make([]byte, need)
	}
	b.headers = b.headers[:0]
	for i, r := range b.runs {
		var h mmsghdr
		if b.nameLen > 0 {
			h.header.Name, h.header.Namelen = (*byte)(unsafe.Pointer(&b.name)), b.nameLen
		}
		h.header.Iov = &b.iovecs[r.first]
		h.header.SetIovlen(r.end - r.first)
		if control := b.control(i); len(control) > 0 {
			h.header.Control = &control[0]
			h.header.SetControllen(len(control))
		}
		b.headers = append(b.headers, h)
	}
}

func (b *sender) control(i int) []byte {
	r, control := b.runs[i], b.controls[i*sendControlSize:][:0:sendControlSize]
	if r.tos != 0 {
		control = appendTOS(control, b.ipv4, r.tos)
	}
	if r.n > 1 {
		control = appendSegment(control, r.segment)
	}
	return control
}
