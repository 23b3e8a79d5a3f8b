package datagram

import (
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Socket is a socket of UDP. Its methods may be called at once, but for Read.
type Socket struct {
	conn   *net.UDPConn
	raw    syscall.RawConn
	v6     bool // the socket's own family: it takes IPv4 addresses as mapped ones
	remote netip.Addr

	// Datagrams that are at least as long are not sent several at once: the
	// kernel has refused it, because they are longer than what the path
	// carries whole, or the device can not do it (0).
	unsegmented atomic.Int64
}

// NewSocket asks for the marks of what conn receives and for buffers of so many
// bytes. The socket is still the caller's.
func NewSocket(conn *net.UDPConn, buffer int) (*Socket, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &Socket{conn: conn, raw: raw}
	s.unsegmented.Store(maxLength)
	if remote, ok := conn.RemoteAddr().(*net.UDPAddr); ok {
		s.remote = remote.AddrPort().Addr().Unmap()
	}
	return s, raw.Control(func(fd uintptr) { s.setUp(int(fd), buffer) })
}

// setUp sets what the kernel lets it: without any of it the socket works, only
// slower, or without marks. The buffers are at most what the sysctls rmem_max
// and wmem_max allow, of which the kernel doubles what it is asked for.
func (s *Socket) setUp(fd, buffer int) {
	family, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	s.v6 = family == unix.AF_INET6
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer)
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, buffer)
	unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1)
	unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVTOS, 1)
	if s.v6 {
		unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVTCLASS, 1)
	}
}
