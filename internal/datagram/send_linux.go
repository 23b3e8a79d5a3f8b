package datagram

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Send sends messages to one peer, or if that is not valid to where the socket
// is connected. It does not wait: what finds no room in the socket's buffer is
// lost, as it is at a router. An error of one datagram goes to failed and does
// not keep back the others. Send fails if the socket is closed.
func (s *Socket) Send(to netip.AddrPort, messages []Message, failed func(error)) error {
	b := senders.Get().(*sender)
	defer senders.Put(b)
	b.gather(messages, int(s.unsegmented.Load()))
	b.prepare(to, s.v6, s.isIPv4(to))
	b.socket, b.failed = s, failed
	return s.raw.Control(b.send)
}

// WriteTOS sends one datagram to a peer, as WriteToUDPAddrPort does.
func (s *Socket) WriteTOS(data []byte, tos uint8, to netip.AddrPort) (int, error) {
	var control []byte
	if tos != 0 {
		control = appendTOS(nil, s.isIPv4(to), tos)
	}
	n, _, err := s.conn.WriteMsgUDPAddrPort(data, control, to)
	return n, err
}

func (s *Socket) isIPv4(to netip.AddrPort) bool {
	if to.IsValid() {
		return to.Addr().Unmap().Is4()
	}
	return s.remote.Is4()
}

// sendTo sends the runs. One that fails is tried once more: a connected socket
// tells with any call what ICMP has said of an earlier datagram, and then has
// not sent this one.
func (b *sender) sendTo(fd uintptr) {
	again := false
	for next := 0; next < len(b.headers); {
		n, errno := b.sendFrom(fd, next)
		switch {
		case errno == 0:
			next, again = next+n, false
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			return
		case b.runs[next].n > 1 && b.socket.mustNotSegment(errno, b.runs[next].segment):
			b.sendApart(fd, b.runs[next])
			next, again = next+1, false
		case !again:
			b.failed(errno)
			again = true
		default:
			next, again = next+1, false
		}
	}
}

// sendFrom sends messages from one on, and returns how many. A single datagram
// without TOS, which is what a question in a quiet flow is, goes the short way.
func (b *sender) sendFrom(fd uintptr, next int) (int, unix.Errno) {
	h, n := &b.headers[next].header, len(b.headers)-next
	if n == 1 && h.Control == nil {
		_, _, errno := unix.Syscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(h.Iov.Base)), uintptr(h.Iov.Len),
			unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(h.Name)), uintptr(h.Namelen))
		return 1, errno
	}
	sent, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&b.headers[next])), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
	return int(sent), errno
}

// mustNotSegment learns from an error that datagrams of a length can not be
// sent several at once.
func (s *Socket) mustNotSegment(errno unix.Errno, segment int) bool {
	switch errno {
	case unix.EIO: // the device computes no checksums
		segment = 0
	case unix.EINVAL, unix.EMSGSIZE: // longer than what the path carries: they travel in fragments
	default:
		return false
	}
	s.unsegmented.Store(min(s.unsegmented.Load(), int64(segment)))
	return true
}

// sendApart sends the datagrams of a run one by one.
func (b *sender) sendApart(fd uintptr, r run) {
	apart := newSender()
	apart.name, apart.nameLen, apart.ipv4 = b.name, b.nameLen, b.ipv4
	apart.socket, apart.failed = b.socket, b.failed
	for _, v := range b.iovecs[r.first:r.end] {
		apart.addAll(Message{Data: unsafe.Slice(v.Base, v.Len), Segment: r.segment, TOS: r.tos}, 0)
	}
	apart.writeHeaders()
	apart.sendTo(fd)
}

func appendTOS(b []byte, ipv4 bool, tos uint8) []byte {
	level, kind := unix.SOL_IPV6, unix.IPV6_TCLASS
	if ipv4 {
		level, kind = unix.SOL_IP, unix.IP_TOS
	}
	var value [4]byte
	binary.NativeEndian.PutUint32(value[:], uint32(tos))
	return appendControl(b, level, kind, value[:])
}

func appendSegment(b []byte, segment int) []byte {
	var value [2]byte
	binary.NativeEndian.PutUint16(value[:], uint16(segment))
	return appendControl(b, unix.SOL_UDP, unix.UDP_SEGMENT, value[:])
}

func appendControl(b []byte, level, kind int, value []byte) []byte {
	at := len(b)
	b = append(b, make([]byte, unix.CmsgSpace(len(value)))...)
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[at]))
	h.Level, h.Type = int32(level), int32(kind)
	h.SetLen(unix.CmsgLen(len(value)))
	copy(b[at+unix.CmsgLen(0):], value)
	return b
}
