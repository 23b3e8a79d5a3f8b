package waybill

import (
	"context"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/windows"

	"github.com/waybill-net/waybill/internal/datagram"
	"github.com/waybill-net/waybill/internal/wfp"
)

// askForRecords makes Windows tell records and context beside the first
// datagram of each flow. A socket of both families needs the options of both;
// one of IPv4 does not know the others.
func askForRecords(c *net.UDPConn) error {
	return opError(opAccept, control(c, func(s wfp.Handle) error {
		errIPv4, errIPv6 := askForRecordsOf(s, wfp.LevelIP), askForRecordsOf(s, wfp.LevelIPv6)
		if errIPv4 != nil && errIPv6 != nil {
			return errIPv4
		}
		return nil
	}))
}

func askForRecordsOf(s wfp.Handle, level int) error {
	for _, option := range []int{wfp.RedirectRecords, wfp.RedirectContext} {
		if err := windows.SetsockoptInt(windows.Handle(s), level, option, 1); err != nil {
			return err
		}
	}
	return nil
}

// query takes what came with the first datagram.
func (c *PacketConn) query(first datagram.Message) error {
	c.records, c.context = first.Records, first.Context
	c.dst, _ = wfp.ContextDestination(first.Context)
	return nil
}

// check refuses what the application sends to a second destination from one
// socket: Windows tells it apart from what goes to the first in its first
// datagram alone, and the others would go to the wrong one.
func (c *PacketConn) check(m datagram.Message) error {
	if len(m.Records) == 0 {
		return nil
	}
	if dst, _ := wfp.ContextDestination(m.Context); dst != c.dst {
		return &OpError{
			Op: opAccept, Err: fmt.Errorf("flow from %s to %s is refused: there is one to %s", c.peer, dst, c.dst), kind: ErrNotSupported,
			hint: "Windows does not tell the datagrams of two destinations apart",
		}
	}
	return nil
}

// dialPacket opens a socket that is not connected: see [datagram.Socket.Carry].
func (d *Dialer) dialPacket(ctx context.Context, from *PacketConn) (*net.UDPConn, error) {
	network, local := "udp4", "0.0.0.0:0"
	if from.OriginalDestination().Addr().Is6() {
		network, local = "udp6", "[::]:0"
	}
	if d.Net.LocalAddr != nil {
		local = d.Net.LocalAddr.String()
	}
	lc := net.ListenConfig{Control: func(network, address string, c syscall.RawConn) error {
		return d.callerControl(ctx, network, address, c)
	}}
	c, err := lc.ListenPacket(ctx, network, local)
	if err != nil {
		return nil, opError(opDial, err)
	}
	return c.(*net.UDPConn), nil
}

// carryRecords makes the first datagram of the relay carry the records. A
// socket that is connected is somebody else's, who knows.
func carryRecords(s *datagram.Socket, c *PacketConn, upstream *net.UDPConn) {
	if upstream.RemoteAddr() == nil && c.dst.IsValid() {
		s.Carry(c.records, c.dst)
	}
}
