//go:build linux

package doctor

import (
	"net/netip"
	"strings"
	"testing"
)

// TestLegacyRules has lines of iptables-save. It is inside the package: the
// public door asks the kernel's tables, and their program may be missing.
func TestLegacyRules(t *testing.T) {
	local := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	for rule, want := range map[string]bool{
		"OUTPUT -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 8080": true,
		"OUTPUT -j REDIRECT": true,
		"PREROUTING -p tcp -j TPROXY --on-port 8085 --on-ip 0.0.0.0 --tproxy-mark 0x0/0x0": true,
		"OUTPUT -p tcp -j DNAT --to-destination 127.0.0.1:8090":                            true,
		"OUTPUT -p tcp -j DNAT --to-destination 192.0.2.1":                                 true,
		"OUTPUT -p tcp -j DNAT --to-destination [::1]:8080":                                true,
		"OUTPUT -p tcp -j DNAT --to-destination 198.51.100.1:80":                           false,
		"OUTPUT -p udp -m udp --dport 53 -j REDIRECT --to-ports 5353":                      false,
		"OUTPUT -p tcp -m comment --comment REDIRECT -j ACCEPT":                            false,
		"POSTROUTING -o eth0 -j MASQUERADE":                                                false,
	} {
		if got := capturesTCP(strings.Fields(rule), local); got != want {
			t.Errorf("%s: %v, want %v", rule, got, want)
		}
	}
}
