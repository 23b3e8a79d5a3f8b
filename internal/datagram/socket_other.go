//go:build !linux && !windows

package datagram

import (
	"net"
	"net/netip"
)

// Socket is a socket of UDP.
type Socket struct{ conn *net.UDPConn }

// NewSocket leaves conn as it is: where waybill does not work, nothing has to
// be fast, and TOS is 0.
func NewSocket(conn *net.UDPConn, _ int) (*Socket, error) { return &Socket{conn}, nil }

// Read hands over what comes until handle returns false or it fails.
func (s *Socket) Read(handle func([]Message) bool, _ func(error)) error {
	buf := make([]byte, maxLength)
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return err
		}
		m := Message{Peer: netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), Data: buf[:n]}
		if !handle([]Message{m}) {
			return nil
		}
	}
}

// Send sends messages to one peer, or if that is not valid to where the socket
// is connected. Read makes messages of one datagram.
func (s *Socket) Send(to netip.AddrPort, messages []Message, failed func(error)) error {
	for _, m := range messages {
		if _, err := s.WriteTOS(m.Data, m.TOS, to); err != nil {
			failed(err)
		}
	}
	return nil
}

// WriteTOS sends one datagram to a peer.
func (s *Socket) WriteTOS(data []byte, _ uint8, to netip.AddrPort) (int, error) {
	if !to.IsValid() {
		return s.conn.Write(data)
	}
	return s.conn.WriteToUDPAddrPort(data, to)
}
