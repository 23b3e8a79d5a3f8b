package datagram

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchSize is how many messages one system call moves. Each may be
	// several datagrams; from 32 on, more gain nothing (bench/README.md).
	batchSize = 32

	// controlSize is room for all that the kernel says beside a datagram, also
	// if the owner of the socket has asked for more than we have.
	controlSize = 256
)

// mmsghdr is struct mmsghdr, which x/sys/unix does not have.
type mmsghdr struct {
	header unix.Msghdr
	length uint32
}

// batch receives messages. It has room for the longest ones, of which only the
// pages that were written to are memory.
type batch struct {
	headers  [batchSize]mmsghdr
	iovecs   [batchSize]unix.Iovec
	names    [batchSize]unix.RawSockaddrInet6
	controls [batchSize][controlSize]byte
	data     []byte
	messages [batchSize]Message

	used  int // headers that the kernel has written to
	named bool
}

// batches are lent to sockets for as long as something is there to be read: an
// idle one holds none.
var batches = sync.Pool{New: func() any { return newBatch() }}

func newBatch() *batch {
	b := &batch{data: make([]byte, batchSize*maxLength), used: batchSize}
	for i := range b.headers {
		h := &b.headers[i].header
		b.iovecs[i].Base = &b.data[i*maxLength]
		b.iovecs[i].SetLen(maxLength)
		h.Iov = &b.iovecs[i]
		h.SetIovlen(1)
	}
	return b
}

// receive takes what waits in the socket, and does not wait for more. Whose
// names nobody asks for costs less: the kernel runs its recvmsg hooks only then.
func (b *batch) receive(fd uintptr, named bool) ([]Message, unix.Errno) {
	if b.named != named {
		b.named, b.used = named, batchSize
	}
	for i := range b.used {
		h := &b.headers[i].header
		if h.Name, h.Namelen = nil, 0; named {
			h.Name, h.Namelen = (*byte)(unsafe.Pointer(&b.names[i])), unix.SizeofSockaddrInet6
		}
		h.Control = &b.controls[i][0]
		h.SetControllen(controlSize)
		b.names[i].Family = unix.AF_UNSPEC
	}
	b.used = 0
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.headers)), batchSize, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return nil, errno
	}
	b.used = int(n)
	for i := range b.used {
		b.messages[i] = b.message(i)
	}
	return b.messages[:n], 0
}

func (b *batch) message(i int) Message {
	h := &b.headers[i]
	m := Message{Peer: addrPort(&b.names[i]), Data: b.data[i*maxLength:][:h.length:h.length]}
	m.readControl(b.controls[i][:h.header.Controllen])
	if m.Segment >= len(m.Data) {
		m.Segment = 0
	}
	return m
}

// readControl walks the control messages; x/sys/unix would allocate a slice of
// them.
func (m *Message) readControl(b []byte) {
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		value := unix.CmsgLen(0)
		if int(h.Len) <= value || int(h.Len) > len(b) {
			return
		}
		switch {
		case h.Level == unix.SOL_IP && h.Type == unix.IP_TOS:
			m.TOS = b[value] // one byte
		case h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_TCLASS:
			m.TOS = uint8(binary.NativeEndian.Uint32(b[value:]))
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO:
			m.Segment = int(binary.NativeEndian.Uint32(b[value:]))
		}
		b = b[min(unix.CmsgSpace(int(h.Len)-value), len(b)):]
	}
}

// addrPort is not valid if the kernel has told no address. IPv4-mapped ones are
// IPv4 addresses.
func addrPort(name *unix.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&name.Port))[:])
	switch name.Family {
	case unix.AF_INET:
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), port)
	case unix.AF_INET6:
		a := netip.AddrFrom16(name.Addr).Unmap()
		if name.Scope_id != 0 && a.Is6() {
			a = a.WithZone(strconv.FormatUint(uint64(name.Scope_id), 10))
		}
		return netip.AddrPortFrom(a, port)
	}
	return netip.AddrPort{}
}

// setAddrPort returns the length of the address, as a socket of its family
// takes it.
func setAddrPort(name *unix.RawSockaddrInet6, a netip.AddrPort, v6 bool) uint32 {
	*name = unix.RawSockaddrInet6{}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&name.Port))[:], a.Port())
	if !v6 {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		v4.Family, v4.Addr = unix.AF_INET, a.Addr().Unmap().As4()
		return unix.SizeofSockaddrInet4
	}
	name.Family, name.Addr = unix.AF_INET6, a.Addr().As16()
	if zone, err := strconv.ParseUint(a.Addr().Zone(), 10, 32); err == nil {
		name.Scope_id = uint32(zone)
	}
	return unix.SizeofSockaddrInet6
}
