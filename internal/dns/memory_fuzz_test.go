package dns_test

import (
	"errors"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"

	miekg "github.com/miekg/dns"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/waybill-net/waybill/internal/dns"
)

// FuzzMemory: of no message is anything learnt but the name asked for, of
// addresses that another parser finds among its answers.
func FuzzMemory(f *testing.F) {
	for _, tt := range hostile {
		f.Add(decode(f, tt.hex))
	}
	f.Add(pack(f, response(f, "www.example.", miekg.TypeA, "www.example. 0 IN CNAME cdn.example.", "cdn.example. 4294967295 IN A 192.0.2.1")))
	f.Add(pack(f, response(f, "www.example.", miekg.TypeANY, "www.example. 60 IN AAAA ::ffff:192.0.2.1", "www.example. 60 IN A 192.0.2.1")))
	f.Add(pack(f, response(f, "a.example.", miekg.TypeA, "a.example. 1 IN CNAME a.example.", "b.example. 1 IN A 192.0.2.1")))
	f.Fuzz(func(t *testing.T, message []byte) {
		var m dns.Memory
		n := read(t, &m, message)
		if n == 0 {
			return
		}
		name, found, ok := answered(message)
		if !ok {
			return // it reads less: no labels with dots in them, no message that is damaged
		}
		learnt := 0
		for addr := range found {
			names := m.Names(addr)
			if len(names) > 0 {
				learnt++
			}
			if len(names) > 1 || len(names) == 1 && unescape(names[0].Name) != name {
				t.Errorf("%s is %v, want %q", addr, names, name)
			}
		}
		if learnt != n {
			t.Errorf("learnt %d addresses, of which the answer has %d", n, learnt)
		}
	})
}

// answered is what another parser finds: the name asked for, and every
// address among the answers.
func answered(message []byte) (name string, found map[netip.Addr]bool, ok bool) {
	var p dnsmessage.Parser
	if _, err := p.Start(message); err != nil {
		return "", nil, false
	}
	questions, err := p.AllQuestions()
	if err != nil || len(questions) != 1 {
		return "", nil, false
	}
	if name = lower(questions[0].Name.String()); name != "." {
		name = strings.TrimSuffix(name, ".")
	}
	found = make(map[netip.Addr]bool)
	for {
		record, err := p.Answer()
		if err != nil {
			return name, found, errors.Is(err, dnsmessage.ErrSectionDone)
		}
		switch body := record.Body.(type) {
		case *dnsmessage.AResource:
			found[netip.AddrFrom4(body.A)] = true
		case *dnsmessage.AAAAResource:
			found[netip.AddrFrom16(body.AAAA).Unmap()] = true
		}
	}
}

var escaped = regexp.MustCompile(`\\([0-9]{3}|.)`)

// unescape undoes the escapes of zone files.
func unescape(name string) string {
	return escaped.ReplaceAllStringFunc(name, func(code string) string {
		if n, err := strconv.ParseUint(code[1:], 10, 8); err == nil && len(code) == 4 {
			return string([]byte{byte(n)})
		}
		return code[1:]
	})
}
