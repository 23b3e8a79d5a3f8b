package dns

import (
	"net/netip"

	miekg "github.com/miekg/dns"
)

// Answer is how a blocked query is answered.
type Answer int

const (
	NXDOMAIN    Answer = iota // there is no such name
	Unspecified               // 0.0.0.0 and ::, which lead nowhere; there is nothing else at the name
	Refused                   // the resolver will not say
)

const (
	// blockedTTL is short, for rules change, but a program that asks in a loop
	// shall not ask us each time. Answers without records have no SOA, and so
	// are not remembered at all (RFC 2308, section 5).
	blockedTTL = 10

	// udpSize fits into the smallest packet that every path of IPv6 carries.
	udpSize = 1232

	// A cookie with the server's half, in hexadecimal digits (RFC 7873).
	minCookie, maxCookie = 2 * 16, 2 * 40
)

// to answers a query. The answer fits into the 512 bytes that every program
// takes over UDP.
func (a Answer) to(query *miekg.Msg) *miekg.Msg {
	m := new(miekg.Msg).SetReply(query)
	m.RecursionAvailable = true
	m.Compress = true
	switch a {
	case Unspecified:
		m.Answer = unspecified(query.Question[0])
	case Refused:
		m.Rcode = miekg.RcodeRefused
	default:
		m.Rcode = miekg.RcodeNameError
	}
	if opt := query.IsEdns0(); opt != nil {
		m.Extra = []miekg.RR{mirror(opt)}
	}
	return m
}

// formatError is a header alone (RFC 1035, section 4.1.1): the question can not
// be said again. What has no whole header, or is a response, is not answered.
func formatError(query []byte) []byte {
	const (
		length             = 12
		response           = 0x80
		opcode, recursion  = 0x78, 0x01 // of the query, and desired
		recursionAvailable = 0x80
	)
	if len(query) < length || query[2]&response != 0 {
		return nil
	}
	answer := make([]byte, length)
	copy(answer, query[:2])
	answer[2] = response | query[2]&(opcode|recursion)
	answer[3] = recursionAvailable | miekg.RcodeFormatError
	return answer
}

func unspecified(q miekg.Question) []miekg.RR {
	if q.Qclass != miekg.ClassINET {
		return nil
	}
	header := miekg.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: q.Qclass, Ttl: blockedTTL}
	switch q.Qtype {
	case miekg.TypeA:
		return []miekg.RR{&miekg.A{Hdr: header, A: netip.IPv4Unspecified().AsSlice()}}
	case miekg.TypeAAAA:
		return []miekg.RR{&miekg.AAAA{Hdr: header, AAAA: netip.IPv6Unspecified().AsSlice()}}
	}
	return nil
}

// mirror is the OPT record that answers another: it says why (RFC 8914), and
// whether DNSSEC was asked for (RFC 3225). It gives back the cookie that the
// resolver has made, for without one a program that has it must drop the
// answer (RFC 7873, section 5.3).
func mirror(asked *miekg.OPT) *miekg.OPT {
	opt := &miekg.OPT{
		Hdr:    miekg.RR_Header{Name: ".", Rrtype: miekg.TypeOPT},
		Option: []miekg.EDNS0{&miekg.EDNS0_EDE{InfoCode: miekg.ExtendedErrorCodeBlocked}},
	}
	opt.SetUDPSize(udpSize)
	opt.SetDo(asked.Do())
	for _, o := range asked.Option {
		if cookie, ok := o.(*miekg.EDNS0_COOKIE); ok && minCookie <= len(cookie.Cookie) && len(cookie.Cookie) <= maxCookie {
			opt.Option = append(opt.Option, cookie)
			break
		}
	}
	return opt
}
