package inspect

import (
	"net/netip"
	"strings"
	"testing"
	"unicode"

	"github.com/waybill-net/waybill"
	"github.com/waybill-net/waybill/internal/dns"
	"github.com/waybill-net/waybill/internal/quic"
)

var dst = netip.MustParseAddrPort("192.0.2.1:443")

// FuzzFirstBytes: whatever a program sends first, over TCP, as a datagram or to
// a resolver, the lines about it are lines of text, and no rule lets a name
// through that another datagram of the same bytes was stopped for.
func FuzzFirstBytes(f *testing.F) {
	for _, first := range []string{
		"", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\x16\x03\x01\x02\x00\x01", "SSH-2.0-OpenSSH_9\r\n", "PRI * HTTP/2.0\r\n\r\nSM",
		"\x1b[2J HTTP/1.1\r\n", "\xaa\xbb\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03ads\x07example\x00\x00\x01\x00\x01",
		"\xaa\xbb\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04a\x1b[J\x00\x00\x01\x00\x01",
	} {
		f.Add([]byte(first))
	}
	f.Fuzz(func(t *testing.T, first []byte) {
		var lines strings.Builder
		s := &service{ctx: t.Context(), lines: newOutput(&lines)}
		if err := s.Rules.Add("ads.example", "*.ads.example"); err != nil {
			t.Fatal(err)
		}
		who := source{waybill.Origin{Comm: "p\x1b[2Jrogram"}, dst, "", 0}
		s.line(who, "%s", protocol(first))
		talk := &dnsTalk{service: s, who: who}
		pass, answer := talk.query(first)
		talk.response(first)
		if kind := s.Rules.Inspect(first).Kind; pass != (kind == dns.Passed || kind == dns.NotAQuery) || pass && answer != nil {
			t.Errorf("passed %t, answer %x", pass, answer)
		}
		packets := &quicPackets{service: s, who: who, send: func([]byte, uint8) { t.Error("sent what was held back, though nothing completes it") }}
		once, _, _ := packets.ToServer(first, 0)
		if again, _, _ := packets.ToServer(first, 0); again != once {
			t.Errorf("passed %t, and sent again %t", once, again)
		}
		resolver := &dnsPackets{dnsTalk{service: s, who: who}, quicPackets{service: s, who: who, send: packets.send}}
		want := pass
		if quic.IsLong(first) {
			want = once
		}
		if forward, _, _ := resolver.ToServer(first, 0); forward != want {
			t.Errorf("to port 53 passed %t", forward)
		}
		s.lines.close()
		for line := range strings.Lines(lines.String()) {
			if strings.ContainsFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("line %q", line)
			}
		}
	})
}
