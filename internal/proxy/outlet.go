package proxy

import "github.com/waybill-net/waybill"

// Send sends a datagram to the server of a flow. It keeps the bytes.
type Send func(datagram []byte, tos uint8)

// outlet sends what an inspector has held back. A flow has no socket before its
// first datagram is to go on: until then it waits. Who looks at a flow does so
// in one goroutine at a time, and the outlet is used in that.
type outlet struct {
	relay   *waybill.PacketRelay // nil: there is no socket yet
	waiting []heldBack
}

type heldBack struct {
	datagram []byte
	tos      uint8
}

// send loses what can not be sent, as any datagram may be.
func (o *outlet) send(datagram []byte, tos uint8) {
	if o.relay == nil {
		o.waiting = append(o.waiting, heldBack{datagram, tos})
		return
	}
	o.relay.Send(datagram, tos)
}

func (o *outlet) open(relay *waybill.PacketRelay) {
	o.relay = relay
	for _, h := range o.waiting {
		relay.Send(h.datagram, h.tos)
	}
	o.waiting = nil
}
