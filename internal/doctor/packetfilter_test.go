//go:build linux

package doctor_test

import (
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/waybill-net/waybill/internal/doctor"
	"github.com/waybill-net/waybill/internal/testenv"
)

// rules has one table of each kind that redirects, and rules beside them that
// are in nobody's way.
const rules = `
table ip out {
	chain output {
		type nat hook output priority -100
		tcp dport 80 redirect to :8080
		tcp dport { 443, 8443-8445 } redirect to :8081
		meta skuid 0 redirect
		udp dport 53 redirect to :5353
		meta l4proto udp dnat to 127.0.0.1:5353
		tcp dport 25 dnat to 198.51.100.1:25
		tcp dport 81-85 accept
		jump capture
	}
	chain capture {
		tcp dport != 22 dnat to 192.0.2.1:8082
	}
	chain prerouting {
		type nat hook prerouting priority -100
		ip daddr 192.0.2.1 tcp dport 82 redirect to :8083
	}
}
table inet mullvad {
	chain prerouting {
		type filter hook prerouting priority -150
		meta l4proto tcp tproxy ip6 to [::1]:8084
	}
}
`

func TestPacketFilter(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	env.Run("rules", "nft", rules)
	findings := examine(t, env, doctor.Options{Scope: env.Scope}, "packet filter")
	for _, tt := range []struct {
		words []string
		level doctor.Level
	}{
		{[]string{"nft ip out output handle", "redirect of port 80 to port 8080"}, doctor.Warning},
		{[]string{"nft ip out output handle", "redirect of port 443,8443-8445 to port 8081"}, doctor.Warning},
		{[]string{"nft ip out output handle", "redirect of all ports to the same port"}, doctor.Warning},
		{[]string{"nft ip out capture handle", "dnat of port not 22 to port 8082 of 192.0.2.1"}, doctor.Warning},
		{[]string{"nft ip out prerouting handle", "redirect of port 82 to port 8083"}, doctor.Info},
		{[]string{"nft inet mullvad prerouting handle", "tproxy of all ports to port 8084 of ::1"}, doctor.Warning},
	} {
		if f := find(t, findings, tt.words...); f.Level != tt.level || f.Remedy == "" {
			t.Errorf("%+v", f)
		}
	}
	if len(findings) != 6 {
		t.Errorf("%d findings, want 6: %+v", len(findings), findings)
	}
	find(t, examine(t, env, doctor.Options{Scope: env.Scope}, "products"), "Mullvad VPN is here: nft table mullvad")
}

// TestRemedy follows the advice of a finding.
func TestRemedy(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	env.Run("rules", "nft", "add table ip a; add chain ip a b { type nat hook output priority 0; }; add rule ip a b tcp dport 80 redirect to :8080")
	f := find(t, examine(t, env, doctor.Options{Scope: env.Scope}, "packet filter"), "redirect of port 80")
	_, after, _ := strings.Cut(f.Remedy, "remove the rule: nft ")
	command, _, _ := strings.Cut(after, ";")
	env.Run("rules", "nft", command)
	checkNoRule(t, env)
}

func TestEmptyNamespace(t *testing.T) {
	t.Parallel()
	checkNoRule(t, testenv.New(t))
}

func checkNoRule(t *testing.T, env *testenv.Env) {
	t.Helper()
	findings := examine(t, env, doctor.Options{Scope: env.Scope}, "packet filter")
	if len(findings) != 1 || findings[0].Level != doctor.OK {
		t.Errorf("%+v", findings)
	}
}

// TestXtables has rules as iptables-nft makes them, one of them Istio's.
func TestXtables(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	env.Inside(func() error {
		var conn nftables.Conn
		nat := conn.AddTable(&nftables.Table{Name: "nat", Family: nftables.TableFamilyIPv4})
		output := conn.AddChain(&nftables.Chain{
			Name: "ISTIO_OUTPUT", Table: nat, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest,
		})
		conn.AddRule(&nftables.Rule{Table: nat, Chain: output, Exprs: []expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 9, Len: 1},
			&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: []byte{unix.IPPROTO_TCP}},
			&expr.Match{Name: "tcp", Info: &xt.Tcp{SrcPorts: [2]uint16{0, 65535}, DstPorts: [2]uint16{80, 88}}},
			&expr.Target{Name: "REDIRECT", Info: &xt.NatIPv4MultiRangeCompat{
				{Flags: uint(xt.NatRangeProtoSpecified), MinIP: []byte{0, 0, 0, 0}, MaxIP: []byte{0, 0, 0, 0}, MinPort: 15001, MaxPort: 15001},
			}},
		}})
		return conn.Flush()
	})
	findings := examine(t, env, doctor.Options{Scope: env.Scope}, "packet filter")
	if f := find(t, findings, "nft ip nat ISTIO_OUTPUT handle", "redirect of port 80-88 to port 15001"); f.Level != doctor.Warning {
		t.Errorf("%+v", f)
	}
	find(t, examine(t, env, doctor.Options{Scope: env.Scope}, "products"), "Istio is here: nft chain ISTIO_OUTPUT")
}
