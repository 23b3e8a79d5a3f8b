package dns_test

import (
	"encoding/hex"
	"reflect"
	"slices"
	"strings"
	"testing"

	miekg "github.com/miekg/dns"

	"github.com/waybill-net/waybill/internal/dns"
)

// query is a message that asks one thing.
func query(name string, qtype uint16) *miekg.Msg {
	m := new(miekg.Msg).SetQuestion(name, qtype)
	m.Id = 0xbeef
	return m
}

func pack(t testing.TB, m *miekg.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func unpack(t testing.TB, b []byte) *miekg.Msg {
	t.Helper()
	m := new(miekg.Msg)
	if err := m.Unpack(b); err != nil {
		t.Fatalf("%v: %x", err, b)
	}
	return m
}

func TestInspect(t *testing.T) {
	r := rules(t, "ads.example", "*.ads.example")
	class := func(m *miekg.Msg, class uint16) *miekg.Msg { m.Question[0].Qclass = class; return m }
	for _, tt := range []struct {
		query *miekg.Msg
		want  dns.Inspection
	}{
		{query("example.org.", miekg.TypeA), dns.Inspection{Kind: dns.Passed, Name: "example.org", Type: "A", Class: "IN"}},
		{query("WWW.Example.ORG.", miekg.TypeHTTPS), dns.Inspection{Kind: dns.Passed, Name: "www.example.org", Type: "HTTPS", Class: "IN"}},
		{query(".", miekg.TypeNS), dns.Inspection{Kind: dns.Passed, Name: ".", Type: "NS", Class: "IN"}},
		{query(`a\.b\007.`, 65280), dns.Inspection{Kind: dns.Passed, Name: `a\.b\007`, Type: "TYPE65280", Class: "IN"}},
		{
			class(query("version.bind.", miekg.TypeTXT), miekg.ClassCHAOS),
			dns.Inspection{Kind: dns.Passed, Name: "version.bind", Type: "TXT", Class: "CH"},
		},
		{query("aDs.eXample.", miekg.TypeA), dns.Inspection{Kind: dns.Blocked, Name: "ads.example", Type: "A", Class: "IN", Rule: "ads.example"}},
		{
			class(query("a.ads.example.", miekg.TypeMX), 42),
			dns.Inspection{Kind: dns.Blocked, Name: "a.ads.example", Type: "MX", Class: "CLASS42", Rule: "*.ads.example"},
		},
	} {
		got := r.Inspect(pack(t, tt.query))
		if blocked := got.Kind == dns.Blocked; got.Barred != blocked || (got.Answer != nil) != blocked {
			t.Errorf("%s: barred=%t, answer of %d bytes", tt.query.Question[0].Name, got.Barred, len(got.Answer))
		}
		got.Barred, got.Answer = false, nil
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, want %+v", tt.query.Question[0].Name, got, tt.want)
		}
	}
}

func TestAnswer(t *testing.T) {
	for _, tt := range []struct {
		answer  dns.Answer
		qtype   uint16
		class   uint16
		rcode   int
		records []string
	}{
		{dns.NXDOMAIN, miekg.TypeA, miekg.ClassINET, miekg.RcodeNameError, nil},
		{dns.NXDOMAIN, miekg.TypeHTTPS, miekg.ClassINET, miekg.RcodeNameError, nil},
		{dns.Refused, miekg.TypeA, miekg.ClassINET, miekg.RcodeRefused, nil},
		{dns.Unspecified, miekg.TypeA, miekg.ClassINET, miekg.RcodeSuccess, []string{"aDs.Example.\t10\tIN\tA\t0.0.0.0"}},
		{dns.Unspecified, miekg.TypeAAAA, miekg.ClassINET, miekg.RcodeSuccess, []string{"aDs.Example.\t10\tIN\tAAAA\t::"}},
		{dns.Unspecified, miekg.TypeHTTPS, miekg.ClassINET, miekg.RcodeSuccess, nil},
		{dns.Unspecified, miekg.TypeA, miekg.ClassCHAOS, miekg.RcodeSuccess, nil},
	} {
		r := rules(t, "ads.example")
		r.Answer = tt.answer
		q := query("aDs.Example.", tt.qtype)
		q.Question[0].Qclass = tt.class
		q.CheckingDisabled = true
		q.AuthenticatedData = true
		m := unpack(t, r.Inspect(pack(t, q)).Answer)
		want := miekg.MsgHdr{
			Id: q.Id, Response: true, RecursionDesired: true, RecursionAvailable: true, CheckingDisabled: true, Rcode: tt.rcode,
		}
		if m.MsgHdr != want {
			t.Errorf("%d: got header %+v, want %+v", tt.answer, m.MsgHdr, want)
		}
		if !slices.Equal(m.Question, q.Question) {
			t.Errorf("%d: got question %v", tt.answer, m.Question)
		}
		var records []string
		for _, record := range m.Answer {
			records = append(records, record.String())
		}
		if !slices.Equal(records, tt.records) {
			t.Errorf("%d: got records %q, want %q", tt.answer, records, tt.records)
		}
		if len(m.Ns)+len(m.Extra) > 0 {
			t.Errorf("%d: has more: %s", tt.answer, m)
		}
	}
}

func TestAnswerMirrorsEDNS(t *testing.T) {
	const client, server = "0123456789abcdef", "00112233445566778899aabbccddeeff"
	for _, tt := range []struct {
		name    string
		do      bool
		options []miekg.EDNS0
		cookie  string
	}{
		{"plain", false, nil, ""},
		{"DNSSEC", true, nil, ""},
		{"cookie of the client alone", false, []miekg.EDNS0{&miekg.EDNS0_COOKIE{Code: miekg.EDNS0COOKIE, Cookie: client}}, ""},
		{"cookie", false, []miekg.EDNS0{&miekg.EDNS0_COOKIE{Code: miekg.EDNS0COOKIE, Cookie: client + server}}, client + server},
		{"cookie too long", false, []miekg.EDNS0{&miekg.EDNS0_COOKIE{Code: miekg.EDNS0COOKIE, Cookie: client + server + server + server}}, ""},
		{"other options", true, []miekg.EDNS0{
			&miekg.EDNS0_NSID{Code: miekg.EDNS0NSID}, &miekg.EDNS0_PADDING{Padding: make([]byte, 100)},
		}, ""},
	} {
		q := query("ads.example.", miekg.TypeA)
		q.SetEdns0(4096, tt.do)
		q.IsEdns0().Option = tt.options
		m := unpack(t, rules(t, "ads.example").Inspect(pack(t, q)).Answer)
		opt := m.IsEdns0()
		if opt == nil || len(m.Extra) != 1 || opt.Version() != 0 || opt.UDPSize() != 1232 || opt.Do() != tt.do {
			t.Errorf("%s: got %v", tt.name, m.Extra)
			continue
		}
		var reason uint16
		var cookie string
		for _, o := range opt.Option {
			switch o := o.(type) {
			case *miekg.EDNS0_EDE:
				reason = o.InfoCode
			case *miekg.EDNS0_COOKIE:
				cookie = o.Cookie
			default:
				t.Errorf("%s: has option %v", tt.name, o)
			}
		}
		if reason != 15 || cookie != tt.cookie {
			t.Errorf("%s: got extended error %d and cookie %q, want 15 and %q", tt.name, reason, cookie, tt.cookie)
		}
	}
}

// TestAnswerFits: the longest name, both halves of a cookie, an address: still
// within 512 bytes.
func TestAnswerFits(t *testing.T) {
	for _, name := range []string{
		strings.Repeat(strings.Repeat("a", 63)+".", 3) + strings.Repeat("b", 53) + ".example.",
		strings.Repeat("a.", 123) + "example.",
		strings.Repeat(`\000`, 63) + "." + strings.Repeat(`\255`, 63) + ".example.",
	} {
		r := rules(t, "*.example")
		r.Answer = dns.Unspecified
		q := query(name, miekg.TypeAAAA)
		q.SetEdns0(512, true)
		q.IsEdns0().Option = []miekg.EDNS0{&miekg.EDNS0_COOKIE{Code: miekg.EDNS0COOKIE, Cookie: strings.Repeat("ab", 40)}}
		got := r.Inspect(pack(t, q))
		if got.Kind != dns.Blocked || len(got.Answer) > 512 {
			t.Errorf("%s: %s, %d bytes", name, got.Kind, len(got.Answer))
			continue
		}
		m := unpack(t, got.Answer)
		if m.Question[0].Name != name || len(m.Answer) != 1 || len(m.IsEdns0().Option) != 2 {
			t.Errorf("%s: answer %s", name, m)
		}
	}
}

// hostile are messages that nobody sends who only wants to know an address.
// Spaces are for people.
var hostile = []struct {
	name, hex string
	want      dns.Kind
}{
	{"nothing", "", dns.Malformed},
	{"a byte", "be", dns.Malformed},
	{"half a header", "beef 0100 0001", dns.Malformed},
	{"no question", "beef 0100 0000 0000 0000 0000", dns.Malformed},
	{"a question that is not there", "beef 0100 0001 0000 0000 0000", dns.Malformed},
	{"a response", "beef 8180 0001 0000 0000 0000 " + adsExample + "0001 0001", dns.NotAQuery},
	{"an update", "beef 2800 0001 0000 0000 0000 " + adsExample + "0006 0001", dns.NotAQuery},
	{"two questions", "beef 0100 0002 0000 0000 0000 " + adsExample + "0001 0001 " + adsExample + "001c 0001", dns.SeveralQuestions},
	{"two questions, the second by a pointer", "beef 0100 0002 0000 0000 0000 " + adsExample + "0001 0001 c00c 001c 0001", dns.SeveralQuestions},
	{"a name cut off", "beef 0100 0001 0000 0000 0000 03 616473 07 6578", dns.Malformed},
	{"no type", "beef 0100 0001 0000 0000 0000 " + adsExample, dns.Malformed},
	{"no class", "beef 0100 0001 0000 0000 0000 " + adsExample + "0001", dns.Malformed},
	{"a pointer to itself", "beef 0100 0001 0000 0000 0000 c00c 0001 0001", dns.Malformed},
	{"two pointers in a circle", "beef 0100 0001 0000 0000 0000 c00e c00c 0001 0001", dns.Malformed},
	{"a pointer beyond the end", "beef 0100 0001 0000 0000 0000 ffff 0001 0001", dns.Malformed},
	{"a label of a reserved kind", "beef 0100 0001 0000 0000 0000 41 61 00 0001 0001", dns.Malformed},
	{"a name too long", "beef 0100 0001 0000 0000 0000 " + strings.Repeat("01 61 ", 128) + "00 0001 0001", dns.Malformed},
	// What is no excuse for a blocked question:
	{"bytes after the end", "beef 0100 0001 0000 0000 0000 " + adsExample + "0001 0001 ffff ffff ffff", dns.Blocked},
	{"records that are not there", "beef 0100 0001 ffff ffff ffff " + adsExample + "0001 0001", dns.Blocked},
	{"a record cut off", "beef 0100 0001 0000 0000 0001 " + adsExample + "0001 0001 00 0029 04d0", dns.Blocked},
	{"an option cut off", "beef 0100 0001 0000 0000 0001 " + adsExample + "0001 0001 00 0029 04d0 00000000 0004 000a 0008", dns.Blocked},
	{"two OPT records", "beef 0100 0001 0000 0000 0002 " + adsExample + "0001 0001" + strings.Repeat(" 00 0029 04d0 00008000 0000", 2), dns.Blocked},
	{"all flags", "beef 07ff 0001 0000 0000 0000 " + adsExample + "0001 0001", dns.Blocked},
	{"the name behind the question", "beef 0100 0001 0000 0000 0000 c012 0001 0001 " + adsExample, dns.Blocked},
}

const adsExample = "03 616473 07 6578616d706c65 00 " // ads.example

func decode(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestInspectHostile(t *testing.T) {
	for _, tt := range hostile {
		got := rules(t, "ads.example").Inspect(decode(t, tt.hex))
		if got.Kind != tt.want || got.Barred != (tt.want != dns.NotAQuery) || (got.Name != "") != (tt.want == dns.Blocked) {
			t.Errorf("%s: got %+v, want %s", tt.name, got, tt.want)
		}
		if got.Kind == dns.Blocked && unpack(t, got.Answer).Question[0].Name != "ads.example." {
			t.Errorf("%s: answer %s", tt.name, unpack(t, got.Answer))
		}
		if got := new(dns.Rules).Inspect(decode(t, tt.hex)); got.Barred || got.Answer != nil {
			t.Errorf("%s, without rules: got %+v", tt.name, got)
		}
	}
}

// TestFormatError: what can not be read is answered with its own id, opcode and
// wish for recursion, and no more; if it has a header, and is no response.
func TestFormatError(t *testing.T) {
	for _, tt := range []struct{ query, want string }{
		{"beef 0100 0000 0000 0000 0000", "beef 8181 0000 0000 0000 0000"},
		{"beef 06ff 0001 0000 0000 0000 03 61", "beef 8081 0000 0000 0000 0000"},
		{"beef 0100 0002 0000 0000 0000 " + adsExample + "0001 0001 c00c 001c 0001", "beef 8181 0000 0000 0000 0000"},
		{"beef 0100 0001 0000 0000 00", ""},
		{"beef 8180 0001 0000 0000 0000 03 61", ""},
	} {
		got := rules(t, "ads.example").Inspect(decode(t, tt.query)).Answer
		if !slices.Equal(got, decode(t, tt.want)) {
			t.Errorf("%s: got %x, want %s", tt.query, got, tt.want)
		}
	}
}

func rules(t testing.TB, names ...string) *dns.Rules {
	t.Helper()
	var r dns.Rules
	if err := r.Add(names...); err != nil {
		t.Fatal(err)
	}
	return &r
}
