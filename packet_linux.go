package waybill

import (
	"context"
	"errors"
	"net"

	"github.com/waybill-net/waybill/internal/datagram"
)

// askForRecords: a listener of UDP has nothing to ask for.
func askForRecords(*net.UDPConn) error { return nil }

// query reads the records from a socket that is connected to the peer: that is
// how the kernel side knows which flow is meant.
func (c *PacketConn) query(datagram.Message) error {
	udp, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(c.peer))
	if err != nil {
		return opError(opAccept, err)
	}
	defer udp.Close()
	if c.records, err = QueryRecords(udp); err != nil {
		return err
	}
	if c.dst, err = OriginalDestination(udp); err != nil {
		return err
	}
	if c.context, err = QueryContext(udp); err != nil && !errors.Is(err, ErrNotRedirected) {
		return err
	}
	c.origin, err = QueryOrigin(udp)
	return err
}

// check: each flow has a peer of its own.
func (c *PacketConn) check(datagram.Message) error { return nil }

func (d *Dialer) dialPacket(ctx context.Context, from *PacketConn) (*net.UDPConn, error) {
	c, err := d.DialContext(ctx, from.Records(), "udp", from.OriginalDestination().String())
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

// carryRecords: they are on the socket of upstream.
func carryRecords(*datagram.Socket, *PacketConn, *net.UDPConn) {}
