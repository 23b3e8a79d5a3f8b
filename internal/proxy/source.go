package proxy

import (
	"net"

	"github.com/waybill-net/waybill"
)

// dialerFor returns the dialer for the upstream connection of c. A client that
// has bound its socket to an address has a reason, such as a route or a rule
// at the server: the upstream connection gets the same one. Not the same port,
// which is the client's own.
func (p *Proxy) dialerFor(c *waybill.Conn) waybill.Dialer {
	d := p.Dialer
	if source := boundSource(c); source != nil && d.Net.LocalAddr == nil {
		d.Net.LocalAddr = source
		if d.Net.Control == nil && d.Net.ControlContext == nil {
			d.Net.Control = choosePortLate
		}
	}
	return d
}

// boundSource returns the address that a client has bound its socket to, or
// nil. Without one, the kernel connects to an address of this host, such as
// the proxy's, from that address itself.
func boundSource(c *waybill.Conn) *net.TCPAddr {
	source, proxy := c.RemoteAddr().(*net.TCPAddr), c.LocalAddr().(*net.TCPAddr)
	if source.IP.Equal(proxy.IP) {
		return nil
	}
	return &net.TCPAddr{IP: source.IP, Zone: source.Zone}
}
