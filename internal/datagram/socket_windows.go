package datagram

import (
	"net"
	"net/netip"
	"sync"

	"github.com/waybill-net/waybill/internal/wfp"
)

// Socket is a socket of UDP. Its methods may be called at once, but for Read.
// Datagrams go one at a time, and TOS is 0.
type Socket struct {
	conn *net.UDPConn

	mu      sync.Mutex
	to      netip.AddrPort // where what has no other destination goes; not valid: the socket is connected
	control []byte         // goes with the first datagram; nil: it is on its way
}

// controlSize is room for records and context.
const controlSize = 64 << 10

// NewSocket leaves conn as it is.
func NewSocket(conn *net.UDPConn, _ int) (*Socket, error) { return &Socket{conn: conn}, nil }

// Carry makes the socket, which is not connected, send to one address, with
// records beside the first datagram, and receive from nobody else. Were it
// connected, WFP would classify the connect(), which can have no records.
func (s *Socket) Carry(records []byte, to netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.to, s.control = to, wfp.AncillaryRecords(records, to.Addr().Is6())
}

// Read hands over what comes until handle returns false or it fails.
func (s *Socket) Read(handle func([]Message) bool, _ func(error)) error {
	buf, control := make([]byte, maxLength), make([]byte, controlSize)
	for {
		n, controlLen, _, from, err := s.conn.ReadMsgUDPAddrPort(buf, control)
		if err != nil {
			return err
		}
		m := Message{Peer: netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), Data: buf[:n]}
		if peer := s.peer(); peer.IsValid() && peer != m.Peer {
			continue
		}
		records, context := wfp.Ancillary(control[:controlLen])
		m.Records, m.Context = append(m.Records, records...), append(m.Context, context...)
		if !handle([]Message{m}) {
			return nil
		}
	}
}

func (s *Socket) peer() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.to
}

// Send sends messages to one peer, or if that is not valid to the socket's own.
// Read makes messages of one datagram.
func (s *Socket) Send(to netip.AddrPort, messages []Message, failed func(error)) error {
	for _, m := range messages {
		if _, err := s.WriteTOS(m.Data, m.TOS, to); err != nil {
			failed(err)
		}
	}
	return nil
}

// WriteTOS sends one datagram to a peer, or if that is not valid to the
// socket's own.
func (s *Socket) WriteTOS(data []byte, _ uint8, to netip.AddrPort) (int, error) {
	if to.IsValid() {
		return s.conn.WriteToUDPAddrPort(data, to)
	}
	s.mu.Lock()
	to, control := s.to, s.control
	if control == nil {
		s.mu.Unlock()
		if !to.IsValid() {
			return s.conn.Write(data)
		}
		return s.conn.WriteToUDPAddrPort(data, to)
	}
	defer s.mu.Unlock() // until the first is on its way, no other may be
	n, _, err := s.conn.WriteMsgUDPAddrPort(data, control, to)
	if err == nil {
		s.control = nil
	}
	return n, err
}
