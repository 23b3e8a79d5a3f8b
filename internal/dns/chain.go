package dns

import (
	"net"
	"net/netip"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/waybill-net/waybill/internal/domain"
)

// Resolved is what a resolver says of a name.
type Resolved struct {
	Name      string                       // that a program asked for, as in [Inspection]
	Addresses map[netip.Addr]time.Duration // that it leads to, and for how long
}

// Resolve reads a message from a resolver to a program, without the length
// that goes before it over TCP. Records that do not lead from the name that was
// asked for to an address by its aliases are ignored, and messages that are no
// answer to one question, or lead nowhere, are not ok. That the answer belongs
// to a query, by its id and the addresses of the datagram, is for the caller to
// see.
func Resolve(response []byte) (found Resolved, ok bool) {
	var answer miekg.Msg
	// After an error answer has all sections before the faulty one.
	_ = answer.Unpack(response)
	if !answers(&answer) {
		return Resolved{}, false
	}
	found.Addresses = addresses(&answer)
	found.Name = domain.Canonical(answer.Question[0].Name)
	return found, len(found.Addresses) > 0
}

// answers says whether a message answers one question about the Internet.
func answers(m *miekg.Msg) bool {
	return m.Response && m.Opcode == miekg.OpcodeQuery && m.Rcode == miekg.RcodeSuccess &&
		len(m.Question) == 1 && m.Question[0].Qclass == miekg.ClassINET
}

// addresses are those that the name asked for leads to, and for how long.
func addresses(m *miekg.Msg) map[netip.Addr]time.Duration {
	found := make(map[netip.Addr]time.Duration)
	aliases := chain(m)
	for _, record := range m.Answer {
		if !aliases[domain.Canonical(record.Header().Name)] || !asked(m.Question[0], record.Header()) {
			continue
		}
		// Nobody is reached at the unspecified address: it stands for a block.
		if addr, ok := address(record); ok && !addr.IsUnspecified() && len(found) < learntPerAnswer {
			found[addr] = time.Duration(record.Header().Ttl) * time.Second
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
			next[domain.Canonical(alias.Hdr.Name)] = domain.Canonical(alias.Target)
		}
	}
	name := domain.Canonical(m.Question[0].Name)
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
