//go:build !linux && !windows

package waybill

import (
	"context"
	"net"

	"github.com/waybill-net/waybill/internal/datagram"
)

func askForRecords(*net.UDPConn) error { return unsupported(opAccept) }

func (c *PacketConn) query(datagram.Message) error { return unsupported(opQueryRecords) }

func (c *PacketConn) check(datagram.Message) error { return nil }

func (d *Dialer) dialPacket(context.Context, *PacketConn) (*net.UDPConn, error) {
	return nil, unsupported(opDial)
}

func carryRecords(*datagram.Socket, *PacketConn, *net.UDPConn) {}
