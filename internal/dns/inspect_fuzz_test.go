package dns_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	miekg "github.com/miekg/dns"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/waybill-net/waybill/internal/dns"
)

// FuzzInspect: no message crashes Inspect, each answer is one to its query, and
// nothing that another parser takes for a blocked question passes.
func FuzzInspect(f *testing.F) {
	for _, tt := range hostile {
		f.Add(decode(f, tt.hex), 0)
	}
	withCookie := query("ADS.example.", miekg.TypeAAAA)
	withCookie.SetEdns0(1232, true)
	withCookie.IsEdns0().Option = []miekg.EDNS0{&miekg.EDNS0_COOKIE{Code: miekg.EDNS0COOKIE, Cookie: strings.Repeat("0f", 24)}}
	f.Add(pack(f, withCookie), int(dns.Unspecified))
	f.Add(pack(f, query(`a\.\000.ads.example.`, miekg.TypeA)), int(dns.Unspecified))
	f.Add(pack(f, query("example.org.", miekg.TypeHTTPS)), int(dns.Refused))
	r := rules(f, "ads.example", "*.ads.example")
	f.Fuzz(func(t *testing.T, message []byte, answer int) {
		r := *r
		r.Answer = dns.Answer(answer)
		got := r.Inspect(message)
		if name, ok := secondOpinion(message); ok && isAd(name) && got.Kind != dns.Blocked {
			t.Errorf("%s is %s", name, got.Kind)
		}
		rule, matches := r.Match(got.Name)
		passes := got.Kind == dns.Passed || got.Kind == dns.NotAQuery
		if matches != (got.Kind == dns.Blocked) || rule != got.Rule || got.Barred == passes || got.Answer != nil && passes || matches && got.Answer == nil {
			t.Errorf("%+v, and rule %q", got, rule)
		}
		if one := got.Kind == dns.Blocked || got.Kind == dns.Passed; one != (got.Name != "") || one != (got.Type != "") || one != (got.Class != "") {
			t.Errorf("%+v", got)
		}
		switch {
		case matches:
			checkAnswer(t, message, got.Answer)
		case got.Answer != nil:
			if m := unpack(t, got.Answer); !m.Response || m.Rcode != miekg.RcodeFormatError || !bytes.Equal(got.Answer[:2], message[:2]) {
				t.Errorf("answer %s", m)
			}
		}
	})
}

func checkAnswer(t *testing.T, query, answer []byte) {
	t.Helper()
	var asked miekg.Msg
	_ = asked.Unpack(query) // the rest may be anything
	m := unpack(t, answer)
	if m.Id != asked.Id || !m.Response || !m.RecursionAvailable || !slices.Equal(m.Question, asked.Question) || len(answer) > 512 {
		t.Errorf("answer of %d bytes: %s", len(answer), m)
	}
}

// secondOpinion is the one question of a query, as another parser reads it.
func secondOpinion(message []byte) (name string, ok bool) {
	var p dnsmessage.Parser
	h, err := p.Start(message)
	if err != nil || h.Response || h.OpCode != 0 {
		return "", false
	}
	questions, err := p.AllQuestions()
	if err != nil || len(questions) != 1 || questions[0].Class == 0 {
		return "", false
	}
	return lower(questions[0].Name.String()), true
}

func isAd(name string) bool {
	return name == "ads.example." || strings.HasSuffix(name, ".ads.example.")
}

// lower knows no characters, only bytes, as DNS does.
func lower(name string) string {
	b := []byte(name)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] += 'a' - 'A'
		}
	}
	return string(b)
}
