package policy_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/waybill-net/waybill/internal/policy"
)

var (
	outside  = netip.MustParseAddrPort("192.0.2.1:443")
	curl     = policy.Subject{Program: "/usr/bin/curl", File: policy.FileID{Inode: 1}, User: "alice", UID: 1000, Cgroup: "/app/deep"}
	explains = policy.Identities{
		Programs: map[string]policy.FileID{"/usr/bin/curl": {Inode: 1}, "/usr/bin/a": {Inode: 2}},
		Users:    map[string]uint32{"alice": 1000, "root": 0},
		Cgroups:  map[string]policy.CgroupID{"/app": {ID: 1, Level: 1}, "/proxies/a": {ID: 2, Level: 2}, "/proxies": {ID: 3, Level: 1}},
	}
)

// three is a policy of a, b and c, the heaviest first, where a wants
// everything, and with other filters.
func three(filters ...policy.Filter) policy.Policy {
	p := policy.Policy{
		Providers: []policy.Provider{provider("a", 3, 7001), provider("b", 2, 7002), provider("c", 1, 7003)},
		Filters:   append([]policy.Filter{{Name: "all", Provider: "a"}}, filters...),
	}
	p.Providers[0].Cgroup = "/proxies/a"
	p.Providers[1].Listen6 = netip.AddrPort{}
	return p
}

func explain(t *testing.T, p policy.Policy, trial policy.Trial) policy.Explanation {
	t.Helper()
	table, err := policy.Compile(p, explains)
	if err != nil {
		t.Fatal(err)
	}
	if !trial.Dst.IsValid() {
		trial.Dst = outside
	}
	e, err := table.Explain(trial)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestExplainReasons looks at what one provider says of a connection that
// comes from curl and, with a chain, from the proxy of a.
func TestExplainReasons(t *testing.T) {
	all := policy.Filter{Name: "f", Provider: "b", Weight: 7}
	for _, tt := range []struct {
		name   string
		change func(f *policy.Filter, p *policy.Policy, trial *policy.Trial)
		want   string // what b says when a's proxy connects
	}{
		{"redirects", nil, "redirects to 127.0.0.1:7002: filter f (weight 7)"},
		{"port", func(f *policy.Filter, _ *policy.Policy, _ *policy.Trial) {
			f.Ports = []policy.PortRange{policy.Port(80), {First: 8000, Last: 8100}}
		}, "does not match: filter f (weight 7): port 443 is not 80 or 8000-8100"},
		{"many ports", func(f *policy.Filter, _ *policy.Policy, _ *policy.Trial) {
			f.Ports = []policy.PortRange{policy.Port(1), policy.Port(2), policy.Port(3), policy.Port(4), policy.Port(5)}
		}, "port 443 is not 1, 2, 3 or 2 more"},
		{"destination", func(f *policy.Filter, _ *policy.Policy, _ *policy.Trial) {
			f.Destination = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		}, "192.0.2.1 is not in 10.0.0.0/8"},
		{"exception", func(f *policy.Filter, _ *policy.Policy, _ *policy.Trial) {
			f.NotDestination = []netip.Prefix{netip.MustParsePrefix("192.0.0.0/16")}
		}, "192.0.2.1 is in not-destination 192.0.0.0/16"},
		{"program", func(f *policy.Filter, _ *policy.Policy, trial *policy.Trial) {
			f.Programs = []string{"/usr/bin/curl"}
			trial.Proxies = map[string]policy.Subject{"a": {Program: "/usr/bin/a", File: policy.FileID{Inode: 2}}}
		}, "program /usr/bin/a is not /usr/bin/curl"},
		{"its program", func(f *policy.Filter, _ *policy.Policy, trial *policy.Trial) {
			f.Programs = []string{"/usr/bin/a"}
			trial.Proxies = map[string]policy.Subject{"a": {Program: "/usr/bin/a", File: policy.FileID{Inode: 2}}}
		}, "redirects to"},
		{"unknown program", func(f *policy.Filter, _ *policy.Policy, _ *policy.Trial) {
			f.Programs = []string{"/usr/bin/curl"}
		}, "program is not known; it wants /usr/bin/curl"},
		{"unknown user is not root", func(f *policy.Filter, _ *policy.Policy, _ *policy.Trial) {
			f.Users = []string{"root"}
		}, "user is not known; it wants root"},
		{"original program", func(f *policy.Filter, _ *policy.Policy, _ *policy.Trial) {
			f.OriginalPrograms = []string{"/usr/bin/curl"}
		}, "redirects to"},
		{"other original program", func(f *policy.Filter, _ *policy.Policy, _ *policy.Trial) {
			f.OriginalPrograms = []string{"/usr/bin/a"}
		}, "original program /usr/bin/curl is not /usr/bin/a"},
		{"cgroup", func(f *policy.Filter, _ *policy.Policy, _ *policy.Trial) {
			f.Cgroups = []string{"/app"}
		}, "cgroup /proxies/a is not in /app"},
		{"cgroup above that of the proxy", func(f *policy.Filter, _ *policy.Policy, _ *policy.Trial) {
			f.Cgroups = []string{"/proxies"}
		}, "redirects to"},
		{"original cgroup", func(f *policy.Filter, _ *policy.Policy, _ *policy.Trial) {
			f.OriginalCgroups = []string{"/app"}
		}, "redirects to"},
		{"other original cgroup", func(f *policy.Filter, _ *policy.Policy, _ *policy.Trial) {
			f.OriginalCgroups = []string{"/proxies"}
		}, "original cgroup /app/deep is not in /proxies"},
		{"state", func(f *policy.Filter, _ *policy.Policy, _ *policy.Trial) {
			f.States = []policy.State{policy.NotRedirected}
		}, "skipped: filter f (weight 7) is for not-redirected"},
		{"shadow", func(_ *policy.Filter, p *policy.Policy, _ *policy.Trial) {
			p.Providers[1].Shadow = true
		}, "skipped: shadow mode; filter f (weight 7) would redirect"},
		{"down", func(_ *policy.Filter, _ *policy.Policy, trial *policy.Trial) {
			trial.Down = []string{"b"}
		}, "skipped: its proxy does not listen; filter f (weight 7) would redirect"},
		{"down and blocks", func(_ *policy.Filter, p *policy.Policy, trial *policy.Trial) {
			p.Providers[1].OnDown, trial.Down = policy.Block, []string{"b"}
		}, "refuses: its proxy does not listen, and on-down is block; filter f (weight 7) would redirect"},
		{"IPv6", func(_ *policy.Filter, _ *policy.Policy, trial *policy.Trial) {
			trial.Dst = netip.MustParseAddrPort("[2001:db8::1]:443")
		}, "skipped: it has no address for IPv6; filter f (weight 7) would redirect"},
		{"no filter", func(f *policy.Filter, _ *policy.Policy, _ *policy.Trial) {
			f.Provider = "c"
		}, "has no filter"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, trial := all, policy.Trial{Client: curl}
			p := three()
			if tt.change != nil {
				tt.change(&f, &p, &trial)
			}
			p.Filters = append(p.Filters, f)
			e := explain(t, p, trial)
			redirect := e.Steps[1].Inquiries[2]
			if got := redirect.Answers[1].Reason; !strings.Contains(got, tt.want) {
				t.Errorf("b says %q, want %q", got, tt.want)
			}
			// What is not known is said, and nothing else.
			if unknown := strings.Contains(tt.want, "not known"); unknown != (len(e.Unknown) == 1 && e.Unknown[0].ProxyOf == "a") {
				t.Errorf("unknown: %+v", e.Unknown)
			}
		})
	}
}

// brief is the outcome of every step, with the hops before it.
func brief(e policy.Explanation) string {
	var steps []string
	for _, s := range e.Steps {
		steps = append(steps, strings.TrimSuffix(fmt.Sprintf("%d %s by %s", s.Hop, s.Outcome, s.Provider), " by "))
	}
	return strings.Join(steps, ", ") + ": " + e.Outcome
}

func TestExplainWays(t *testing.T) {
	both := three(policy.Filter{Name: "too", Provider: "b"})
	long := policy.Policy{}
	for i := range 9 {
		name := fmt.Sprintf("p%d", i)
		long.Providers = append(long.Providers, provider(name, int32(-i), uint16(7001+i)))
		long.Filters = append(long.Filters, policy.Filter{Provider: name})
	}
	off := both
	off.TrackingOff = true
	off.Providers = slices.Clone(off.Providers)
	for _, tt := range []struct {
		name   string
		policy policy.Policy
		trial  policy.Trial
		want   string
	}{
		{"a chain", both, policy.Trial{Client: curl}, "0 redirected by a, 1 redirected by b, 2 passed: passed"},
		{"nobody", three(), policy.Trial{Client: curl, Dst: netip.MustParseAddrPort("127.0.0.1:1")}, "0 passed: passed"},
		{"a proxy's own address", both, policy.Trial{Client: curl, Dst: netip.MustParseAddrPort("127.0.0.1:7002")}, "0 passed: passed"},
		{"an unaware proxy", both, policy.Trial{Client: curl, Unaware: []string{"a"}}, "0 redirected by a, 0 redirected by b, 1 passed: passed"},
		{"both unaware", both, policy.Trial{Client: curl, Unaware: []string{"a", "b"}}, "0 redirected by a, 0 redirected by b, 0 passed: passed"},
		{"from a's cgroup", both, policy.Trial{Client: policy.Subject{Cgroup: "/proxies/a/deep"}}, "0 redirected by b, 1 passed: passed"},
		{
			"too many hops", long,
			policy.Trial{Client: curl},
			"0 redirected by p0, 1 redirected by p1, 2 redirected by p2, 3 redirected by p3, 4 redirected by p4, " +
				"5 redirected by p5, 6 redirected by p6, 7 redirected by p7, 8 looped by p8: looped",
		},
		{"tracking off", off, policy.Trial{Client: curl}, "0 redirected by a, 0 redirected by b, 0 redirected by a: looped"},
		{
			"forbidden to the program", three(policy.Filter{Name: "no", Provider: "c", Action: policy.ActionBlock, Users: []string{"alice"}}),
			policy.Trial{Client: curl},
			"0 forbidden by c: forbidden",
		},
		{
			"forbidden to the proxy", three(policy.Filter{Name: "no", Provider: "c", Action: policy.ActionBlock, Users: []string{"root"}}),
			policy.Trial{Client: curl, Proxies: map[string]policy.Subject{"a": {User: "root"}}},
			"0 redirected by a, 1 forbidden by c: forbidden",
		},
		{
			"forbidden to the program behind a proxy",
			three(policy.Filter{Name: "no", Provider: "c", Action: policy.ActionBlock, Users: []string{"alice"}, States: []policy.State{policy.RedirectedByOther}}),
			policy.Trial{Client: curl},
			"0 redirected by a, 1 forbidden by c: forbidden",
		},
	} {
		if got := brief(explain(t, tt.policy, tt.trial)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestExplainErrors(t *testing.T) {
	table := compile(t, three())
	for _, tt := range []struct {
		trial policy.Trial
		want  string
	}{
		{policy.Trial{}, "no destination"},
		{policy.Trial{Dst: outside, Down: []string{"z"}}, `no provider "z"`},
		{policy.Trial{Dst: outside, Unaware: []string{"y"}}, `no provider "y"`},
		{policy.Trial{Dst: outside, Proxies: map[string]policy.Subject{"x": {}}}, `no provider "x"`},
	} {
		if _, err := table.Explain(tt.trial); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: error %v, want %q", tt.trial, err, tt.want)
		}
	}
}
