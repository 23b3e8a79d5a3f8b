//go:build linux

package doctor

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ruleMessage is a rule as the kernel lists it.
func ruleMessage(f *testing.F, expressions map[string][]byte) []byte {
	f.Helper()
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	e.String(unix.NFTA_RULE_TABLE, "filter")
	e.String(unix.NFTA_RULE_CHAIN, "output")
	e.Uint64(unix.NFTA_RULE_HANDLE, 7)
	e.Nested(unix.NFTA_RULE_EXPRESSIONS, func(list *netlink.AttributeEncoder) error {
		for name, data := range expressions {
			list.Nested(unix.NFTA_LIST_ELEM, func(x *netlink.AttributeEncoder) error {
				x.String(unix.NFTA_EXPR_NAME, name)
				x.Bytes(unix.NFTA_EXPR_DATA|unix.NLA_F_NESTED, data)
				return nil
			})
		}
		return nil
	})
	b, err := e.Encode()
	if err != nil {
		f.Fatal(err)
	}
	return append([]byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 0}, b...)
}

// FuzzRules: a rule of the packet filter of any shape, as nftables and as
// iptables have it, is understood or is an error.
func FuzzRules(f *testing.F) {
	register := func(typ byte, value byte) []byte { return []byte{8, 0, typ, 0, 0, 0, 0, value} }
	f.Add([]byte("PREROUTING -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 8080"))
	f.Add([]byte("OUTPUT -p tcp -j DNAT --to-destination 127.0.0.1:8080"))
	f.Add([]byte("OUTPUT -p tcp -j DNAT --to-destination"))
	f.Add(ruleMessage(f, map[string][]byte{"tproxy": append(register(1, 2), register(3, 1)...), "redir": register(1, 1)}))
	f.Add(ruleMessage(f, map[string][]byte{"payload": register(1, 1), "cmp": register(1, 1), "nat": register(1, 1)}))
	f.Add(ruleMessage(f, map[string][]byte{"match": []byte("\x0e\x00\x01\x00multiport\x00\x00\x00"), "target": []byte("\x0d\x00\x01\x00REDIRECT\x00\x00\x00\x00")}))
	f.Fuzz(func(t *testing.T, rule []byte) {
		r := ruleReader{values: make(map[uint32][]byte), fields: make(map[uint32]field)}
		if err := r.read(rule); err == nil && r.action != "" {
			if d := r.describe(nil); d.Subject == "" || d.Remedy == "" {
				t.Errorf("described as %+v", d)
			}
		}
		capturesTCP(strings.Fields(string(rule)), nil)
		multiport(rule)
	})
}
