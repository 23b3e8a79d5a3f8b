package policyfile_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/waybill-net/waybill/internal/policy"
)

func TestShadowed(t *testing.T) {
	for _, tt := range []struct {
		name   string
		first  string // fields of a filter of weight 1
		second string // and of one of weight 0
		want   bool
	}{
		{"everything", "", "match: {port: 80}", true},
		{"the same", "match: {port: 80}", "match: {port: 80}", true},
		{"less", "match: {port: 80}", "", false},
		{"ports", `match: {port: ["1-99", "100-200"]}`, `match: {port: ["50-150", 7]}`, true},
		{"ports with a gap", `match: {port: ["1-99", "101-200"]}`, `match: {port: "50-150"}`, false},
		{"prefix", "match: {destination: 10.0.0.0/8}", "match: {destination: [10.1.0.0/16, 10.2.0.1]}", true},
		{"halves", "match: {destination: [10.0.0.0/9, 10.128.0.0/9]}", "match: {destination: 10.0.0.0/8}", true},
		{"one family", "match: {destination: 0.0.0.0/0}", "", false},
		{"both families", `match: {destination: [0.0.0.0/0, "::/0"]}`, "", true},
		{"mapped", "match: {destination: 10.0.0.0/8}", `match: {destination: "::ffff:10.0.0.0/104"}`, true},
		{"exception", "match: {not-destination: 10.0.0.0/8}", "match: {destination: 10.1.0.0/16}", false},
		{"the same exception", "match: {not-destination: 10.0.0.0/8}", "match: {not-destination: 10.0.0.0/8, port: 80}", true},
		{"loopback must be named", "", "match: {destination: 127.0.0.1}", false},
		{"but not to block", "action: block", "action: permit\n    match: {destination: 127.0.0.1}", true},
		{"layers apart", "action: block", "", false},
		{"program", "match: {program: [/a, /b]}", "match: {program: /b}", true},
		{"other program", "match: {program: /a}", "match: {original-program: /a}", false},
		{"original", "match: {original-program: [/a, /b]}", "match: {original-program: [/b, /a]}", true},
		{"user", "match: {user: [root, 7]}", "match: {user: 0}", true},
		{"other user", "match: {user: [root, 7]}", "match: {user: [0, 8]}", false},
		{"cgroup", "match: {cgroup: /a}", "match: {cgroup: [/a/b, /a]}", true},
		{"cgroup beside", "match: {cgroup: /a}", "match: {cgroup: /ab}", false},
		{"state", "match: {state: [not-redirected, redirected-by-other]}", "", true},
		{"one state", "match: {state: not-redirected}", "", false},
	} {
		data := header + "filters:\n  - name: one\n    provider: dlp\n    weight: 1\n    " + tt.first +
			"\n  - name: two\n    provider: dlp\n    " + tt.second + "\n"
		_, warnings := parse(t, data)
		if got := strings.Contains(warnings, `filter "two" never counts: filter "one" is heavier`); got != tt.want {
			t.Errorf("%s: %v, want %v: %s", tt.name, got, tt.want, warnings)
		}
	}
}

func TestNamesThatNobodyTells(t *testing.T) {
	for _, tt := range []struct {
		name string
		dns  string // match of another filter
		want bool
	}{
		{"nobody", "match: {port: 443}", true},
		{"UDP", "match: {port: 53, protocol: udp}", false},
		{"TCP", `match: {port: "50-60"}`, false},
		{"all ports", "", false},
		{"permitted", "action: permit\n    match: {port: 53, protocol: [tcp, udp]}", true},
		{"only for a name", "match: {port: 53, protocol: [tcp, udp], domain: example.net}", true},
	} {
		data := header + "filters:\n  - name: site\n    provider: dlp\n    match: {port: 443, domain: example.org}\n" +
			"  - name: dns\n    provider: dlp\n    " + tt.dns + "\n"
		_, warnings := parse(t, data)
		if got := strings.Contains(warnings, `filter "site" asks for names, which nobody tells: no filter redirects port 53`); got != tt.want {
			t.Errorf("%s: %v, want %v: %s", tt.name, got, tt.want, warnings)
		}
	}
}

// TestShadowedNeverDecides asks the decision itself: no connection whatever is
// decided by a filter that was said never to count.
func TestShadowedNeverDecides(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	shadowed, decided := 0, 0
	for range 300 {
		p, warnings := parse(t, randomPolicy(rng))
		table, err := policy.Compile(p, identities)
		if err != nil {
			t.Fatal(err)
		}
		never := make(map[string]bool)
		for _, f := range p.Filters {
			never[f.Name] = strings.Contains(warnings, fmt.Sprintf("filter %q never counts", f.Name))
			if never[f.Name] {
				shadowed++
			}
		}
		for range 200 {
			q := randomQuery(rng)
			if d := table.Decide(q); d.Verdict != policy.Pass {
				decided++
				if name := table.Filters[d.Filter].Name; never[name] {
					t.Fatalf("filter %s decided %+v\n%s", name, q, warnings)
				}
			}
			if d := table.Authorize(q); d.Verdict != policy.Pass && never[table.Filters[d.Filter].Name] {
				t.Fatalf("filter %s decided %+v\n%s", table.Filters[d.Filter].Name, q, warnings)
			}
		}
	}
	if shadowed < 100 || decided < 1000 {
		t.Errorf("%d filters shadowed, %d connections redirected: too few to tell", shadowed, decided)
	}
}

var identities = policy.Identities{
	Programs: map[string]policy.FileID{"/a": {Inode: 1}, "/b": {Inode: 2}},
	Users:    map[string]uint32{"root": 0},
	Cgroups:  map[string]policy.CgroupID{"/cg/x": {ID: 1}, "/cg/x/y": {ID: 2}},
}

func randomPolicy(rng *rand.Rand) string {
	pick := func(values ...string) string { return values[rng.IntN(len(values))] }
	var b strings.Builder
	b.WriteString(header + "filters:\n")
	for i := range 8 {
		fmt.Fprintf(&b, "  - name: f%d\n    provider: dlp\n    weight: %d\n    action: %s\n    match: {protocol: tcp", i,
			rng.IntN(3), pick("redirect", "redirect", "permit", "block"))
		b.WriteString(pick("", "", `, destination: ["0.0.0.0/0", "::/0"]`, ", destination: 127.0.0.0/8", ", destination: 10.0.0.0/8",
			`, destination: ["10.0.0.0/9", "10.128.0.0/9", "::1"]`, `, destination: "::ffff:10.0.0.0/104"`))
		b.WriteString(pick("", "", ", not-destination: 10.0.0.0/16", `, not-destination: "::/1"`))
		b.WriteString(pick("", "", ", port: 80", `, port: ["1-80", "81-100"]`, ", port: [90, 80]"))
		b.WriteString(pick("", "", "", ", program: /a", ", program: [/b, /a]", ", original-program: /a"))
		b.WriteString(pick("", "", "", ", user: 0", ", user: [1, root]"))
		b.WriteString(pick("", "", "", ", cgroup: /x", ", cgroup: /x/y"))
		b.WriteString(pick("", "", ", state: not-redirected", ", state: [redirected-by-other, not-redirected]"))
		b.WriteString("}\n")
	}
	return b.String()
}

func randomQuery(rng *rand.Rand) policy.Query {
	addrs := []string{"127.0.0.1", "127.9.9.9", "10.0.0.1", "10.200.0.1", "192.0.2.1", "::1", "fe80::1", "2001:db8::1", "ffff::1"}
	process := func() policy.Process {
		return policy.Process{
			Program: policy.FileID{Inode: rng.Uint64N(3)},
			UID:     rng.Uint32N(3),
			Cgroups: [][]uint64{{}, {1}, {1, 2}}[rng.IntN(3)],
		}
	}
	q := policy.Query{Process: process(), Self: -1}
	q.Origin = q.Process
	q.Dst = netip.AddrPortFrom(netip.MustParseAddr(addrs[rng.IntN(len(addrs))]), []uint16{79, 80, 90, 443}[rng.IntN(4)])
	if rng.IntN(2) == 0 {
		q.Origin = process()
		q.Hops = []policy.Hop{{Handle: policy.Handle("other")}}
	}
	return q
}

// TestWarnHomes: all that a provider wants and has no address for is named at
// once.
func TestWarnHomes(t *testing.T) {
	for _, tt := range []struct{ proxy, match, want string }{
		{`listen: "127.0.0.1:7001", listen6: "[::1]:7001"`, `port: 80`, ""},
		{
			`listen: "127.0.0.1:7001"`, `port: 53, protocol: [tcp, udp]`,
			`for IPv6, UDP over IPv4, UDP over IPv6: such connections are passed by, though filter "f" wants them` +
				"\n  hint: " + `add listen6: "[::1]:7001", udp: "127.0.0.1:7001", udp6: "[::1]:7001", or a narrower destination, or protocol, to the filter`,
		},
		{
			`listen: "127.0.0.1:7001", udp: "127.0.0.1:7001"`, `port: 53, protocol: [tcp, udp]`,
			`for IPv6, UDP over IPv6: such connections are passed by, though filter "f" wants them` +
				"\n  hint: " + `add listen6: "[::1]:7001", udp6: "[::1]:7001", or destination: "0.0.0.0/0" to the filter`,
		},
		{
			`listen: "127.0.0.1:7001"`, `protocol: udp, port: 53, destination: "192.0.2.0/24"`,
			`for UDP over IPv4: such connections are passed by, though filter "f" wants them` +
				"\n  hint: " + `add udp: "127.0.0.1:7001", or destination: "::/0" to the filter`,
		},
	} {
		_, warnings := parse(t, `version: 1
providers: [{name: p, proxy: {`+tt.proxy+`}, processes: {unit: p.service}}]
filters: [{name: f, provider: p, match: {`+tt.match+`}}]
`)
		_, got, _ := strings.Cut(warnings, `warning: provider "p" has no address `)
		if strings.TrimSpace(got) != tt.want {
			t.Errorf("%s, %s:\n%s, want\n%s", tt.proxy, tt.match, got, tt.want)
		}
	}
}
