//go:build linux

package doctor

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
)

// What iptables-nft makes are nft rules with the matches and targets of
// iptables inside.

func (r *ruleReader) matchXtables(e *expr.Match) {
	switch m := e.Info.(type) {
	case *xt.Tcp:
		if m.DstPorts != [2]uint16{0, 65535} {
			r.ports = append(r.ports, fmt.Sprintf("%d-%d", m.DstPorts[0], m.DstPorts[1]))
		}
	case *xt.Udp:
		r.notTCP = true
	case *xt.Unknown:
		if e.Name == "multiport" {
			r.ports = append(r.ports, multiport(*m))
		}
	}
}

// multiport reads the kernel's struct xt_multiport_v1, whose numbers are in
// host order: flags, count, 15 ports, of which a flag marks those that begin
// a range, and whether all is inverted.
func multiport(info []byte) string {
	const flags, count, first, ranges, inverted = 0, 1, 2, 32, 47
	if len(info) <= inverted || info[flags] == 0 || int(info[count]) > 15 {
		return "that the rule lists" // of the source, or of another version
	}
	var list strings.Builder
	for i := range int(info[count]) {
		list.WriteString(strconv.Itoa(int(binary.NativeEndian.Uint16(info[first+2*i:]))))
		switch {
		case i+1 == int(info[count]):
		case info[ranges+i] != 0:
			list.WriteByte('-')
		default:
			list.WriteByte(',')
		}
	}
	return negated(info[inverted] != 0, list.String())
}

// applyXtables reads the targets of iptables-nft.
func (r *ruleReader) applyXtables(e *expr.Target) {
	address, port := xtablesTarget(e.Info)
	to := "the same port"
	if port != 0 {
		to = "port " + strconv.Itoa(int(port))
	}
	switch {
	case e.Name == "REDIRECT":
		r.action, r.to = "redirect", to
	case e.Name == "TPROXY":
		r.action, r.to = "tproxy", "a local port"
	case e.Name == "DNAT" && r.isLocal(address):
		r.action, r.to = "dnat", to+" of "+address.String()
	}
}

func xtablesTarget(info xt.InfoAny) (netip.Addr, uint16) {
	var ip []byte
	var port uint16
	switch t := info.(type) {
	case *xt.NatRange:
		ip, port = t.MinIP, t.MinPort
	case *xt.NatRange2:
		ip, port = t.MinIP, t.MinPort
	case *xt.NatIPv4MultiRangeCompat:
		if len(*t) > 0 {
			ip, port = (*t)[0].MinIP, (*t)[0].MinPort
		}
	}
	address, _ := netip.AddrFromSlice(ip)
	return address.Unmap(), port
}
