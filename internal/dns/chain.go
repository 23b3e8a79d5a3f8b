package dns

import (
	"net"
	"net/netip"

	miekg "github.com/miekg/dns"
)

// answers says whether a message answers one question about the Internet.
func answers(m *miekg.Msg) bool {
	return m.Response && m.Opcode == miekg.OpcodeQuery && m.Rcode == miekg.RcodeSuccess &&
		len(m.Question) == 1 && m.Question[0].Qclass == miekg.ClassINET
}

// addresses are those that the name asked for leads to, with how many seconds
// that is so.
func addresses(m *miekg.Msg) map[netip.Addr]uint32 {
	found := make(map[netip.Addr]uint32)
	aliases := chain(m)
	for _, record := range m.Answer {
		if !aliases[canonical(record.Header().Name)] || !asked(m.Question[0], record.Header()) {
			continue
		}
		// Nobody is reached at the unspecified address: it stands for a block.
		if addr, ok := address(record); ok && !addr.IsUnspecified() && len(found) < learntPerAnswer {
			found[addr] = record.Header().Ttl
		}
	}
	return found
}

// chain is the set of the name asked for and its aliases. Resolvers may list
// the aliases in any order, and in a circle.
func chain(m *miekg.Msg) map[string]bool {
	next := make(map[string]string)
	for _, record := range m.Answer {
		if alias, ok := record.(*miekg.CNAME); ok && alias.Hdr.Class == miekg.ClassINET {
			next[canonical(alias.Hdr.Name)] = canonical(alias.Target)
		}
	}
	name := canonical(m.Question[0].Name)
	names := map[string]bool{name: true}
	for name, ok := next[name]; ok && !names[name]; name, ok = next[name] {
		names[name] = true
	}
	return names
}

func asked(q miekg.Question, h *miekg.RR_Header) bool {
	return h.Class == q.Qclass && (h.Rrtype == q.Qtype || q.Qtype == miekg.TypeANY)
}

func address(record miekg.RR) (netip.Addr, bool) {
	var ip net.IP
	switch record := record.(type) {
	case *miekg.A:
		ip = record.A
	case *miekg.AAAA:
		ip = record.AAAA
	}
	addr, ok := netip.AddrFromSlice(ip)
	return addr.Unmap(), ok
}
