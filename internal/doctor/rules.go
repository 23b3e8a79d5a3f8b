//go:build linux

package doctor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// capture is a rule of the packet filter that sends connections to a local
// port.
type capture struct {
	table  nftables.Table
	chain  string
	handle uint64
	action string   // "redirect", "tproxy" or "dnat"
	ports  []string // conditions on the destination's port
	to     string
}

// readCaptures lists the rules of all tables, those too that come before an
// error. It asks the kernel itself, because the nftables package drops
// expressions that it does not know, and tproxy is one of them.
func readCaptures(local []netip.Addr) ([]capture, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	rules, err := conn.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE,
			Flags: netlink.Request | netlink.Dump,
		},
		Data: []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil {
		return nil, err
	}
	var (
		captures []capture
		errs     []error
	)
	for _, rule := range rules {
		r := ruleReader{local: local, values: make(map[uint32][]byte), fields: make(map[uint32]field)}
		if err := r.read(rule.Data); err != nil {
			errs = append(errs, fmt.Errorf("decode rule %d of %s: %w", r.handle, r.table.Name, err))
		} else if r.action != "" && !r.notTCP {
			captures = append(captures, r.capture)
		}
	}
	return captures, errors.Join(errs...)
}

// field is what an expression has loaded into a register.
type field int

const (
	other field = iota
	protocol
	port
)

// ruleReader follows one rule through its registers.
type ruleReader struct {
	capture
	local  []netip.Addr
	values map[uint32][]byte // constants, by register
	fields map[uint32]field
	notTCP bool
}

func (r *ruleReader) read(message []byte) error {
	const header = 4 // struct nfgenmsg
	if len(message) < header {
		return fmt.Errorf("message of %d bytes", len(message))
	}
	attributes, err := netlink.NewAttributeDecoder(message[header:])
	if err != nil {
		return err
	}
	attributes.ByteOrder = binary.BigEndian
	r.table.Family = nftables.TableFamily(message[0])
	for attributes.Next() {
		switch attributes.Type() {
		case unix.NFTA_RULE_TABLE:
			r.table.Name = attributes.String()
		case unix.NFTA_RULE_CHAIN:
			r.chain = attributes.String()
		case unix.NFTA_RULE_HANDLE:
			r.handle = attributes.Uint64()
		case unix.NFTA_RULE_EXPRESSIONS:
			attributes.Nested(r.readExpressions)
		}
	}
	return attributes.Err()
}

func (r *ruleReader) readExpressions(list *netlink.AttributeDecoder) error {
	for list.Next() {
		list.Nested(r.readExpression)
	}
	return nil
}

func (r *ruleReader) readExpression(attributes *netlink.AttributeDecoder) error {
	var name string
	for attributes.Next() {
		switch attributes.Type() {
		case unix.NFTA_EXPR_NAME:
			name = attributes.String()
		case unix.NFTA_EXPR_DATA:
			if name == "tproxy" {
				attributes.Nested(r.readTProxy)
				continue
			}
			e := newExpression(name)
			if e == nil {
				continue // neither a condition on ports nor an action
			}
			if err := expr.Unmarshal(byte(r.table.Family), attributes.Bytes(), e); err != nil {
				return err
			}
			r.follow(e)
		}
	}
	return nil
}

// readTProxy does what expr.TProxy should: that one reads the family as one
// byte, and the kernel writes four.
func (r *ruleReader) readTProxy(attributes *netlink.AttributeDecoder) error {
	var address, port uint32
	for attributes.Next() {
		switch attributes.Type() {
		case expr.NFTA_TPROXY_REG_ADDR:
			address = attributes.Uint32()
		case expr.NFTA_TPROXY_REG_PORT:
			port = attributes.Uint32()
		}
	}
	r.action, r.to = "tproxy", r.target(address, port)
	return nil
}

func newExpression(name string) expr.Any {
	switch name {
	case "immediate":
		return &expr.Immediate{}
	case "meta":
		return &expr.Meta{}
	case "payload":
		return &expr.Payload{}
	case "cmp":
		return &expr.Cmp{}
	case "range":
		return &expr.Range{}
	case "lookup":
		return &expr.Lookup{}
	case "match":
		return &expr.Match{}
	case "target":
		return &expr.Target{}
	case "redir":
		return &expr.Redir{}
	case "nat":
		return &expr.NAT{}
	}
	return nil
}

// follow notes what the expression loads, which ports it lets through, and
// where it sends them.
func (r *ruleReader) follow(e expr.Any) {
	switch e := e.(type) {
	case *expr.Immediate:
		r.values[e.Register] = e.Data
	case *expr.Meta:
		r.fields[e.Register] = other
		if e.Key == expr.MetaKeyL4PROTO {
			r.fields[e.Register] = protocol
		}
	case *expr.Payload:
		r.fields[e.DestRegister] = r.fieldAt(e)
	case *expr.Cmp:
		r.compare(e)
	case *expr.Range:
		if r.fields[e.Register] == port {
			r.ports = append(r.ports, negated(e.Op == expr.CmpOpNeq, fmt.Sprintf("%d-%d", number(e.FromData), number(e.ToData))))
		}
	case *expr.Lookup:
		if r.fields[e.SourceRegister] == port {
			r.ports = append(r.ports, negated(e.Invert, r.setOf(e.SetName)))
		}
	case *expr.Match:
		r.matchXtables(e)
	case *expr.Redir:
		r.action, r.to = "redirect", r.target(0, e.RegisterProtoMin)
	case *expr.NAT:
		r.translate(e)
	case *expr.Target:
		r.applyXtables(e)
	}
}

// fieldAt knows the two header fields of interest: the destination's port,
// and the protocol where iptables-nft reads it from an IPv4 header.
func (r *ruleReader) fieldAt(e *expr.Payload) field {
	switch {
	case e.Base == expr.PayloadBaseTransportHeader && e.Offset == 2 && e.Len == 2:
		return port
	case e.Base == expr.PayloadBaseNetworkHeader && e.Offset == 9 && e.Len == 1 && r.table.Family == nftables.TableFamilyIPv4:
		return protocol
	}
	return other
}

var operators = map[expr.CmpOp]string{
	expr.CmpOpNeq: "not ", expr.CmpOpLt: "<", expr.CmpOpLte: "<=", expr.CmpOpGt: ">", expr.CmpOpGte: ">=",
}

func (r *ruleReader) compare(e *expr.Cmp) {
	switch r.fields[e.Register] {
	case protocol:
		r.notTCP = (e.Op == expr.CmpOpEq) != (len(e.Data) > 0 && e.Data[0] == unix.IPPROTO_TCP)
	case port:
		r.ports = append(r.ports, operators[e.Op]+strconv.Itoa(int(number(e.Data))))
	}
}

// setOf names a set of ports, or what is in it if it has no name of its own.
func (r *ruleReader) setOf(name string) string {
	if !strings.HasPrefix(name, "__set") {
		return "@" + name
	}
	var conn nftables.Conn
	elements, err := conn.GetSetElements(&nftables.Set{Table: &r.table, Name: name})
	if err != nil {
		return "@" + name
	}
	slices.SortFunc(elements, func(a, b nftables.SetElement) int { return int(number(a.Key)) - int(number(b.Key)) })
	var ports []string
	for i, e := range elements {
		switch {
		case e.IntervalEnd:
		case i+1 < len(elements) && elements[i+1].IntervalEnd && number(elements[i+1].Key) > number(e.Key)+1:
			ports = append(ports, fmt.Sprintf("%d-%d", number(e.Key), number(elements[i+1].Key)-1))
		default:
			ports = append(ports, strconv.Itoa(int(number(e.Key))))
		}
	}
	return strings.Join(ports, ",")
}

// target writes the address and port that are in two registers; 0 is none.
func (r *ruleReader) target(address, port uint32) string {
	to := "the same port"
	if p, ok := r.values[port]; ok {
		to = "port " + strconv.Itoa(int(number(p)))
	}
	if a, ok := netip.AddrFromSlice(r.values[address]); ok {
		to += " of " + a.String()
	}
	return to
}

func (r *ruleReader) translate(e *expr.NAT) {
	address, ok := netip.AddrFromSlice(r.values[e.RegAddrMin])
	if e.Type == expr.NATTypeDestNAT && ok && r.isLocal(address) {
		r.action, r.to = "dnat", r.target(e.RegAddrMin, e.RegProtoMin)
	}
}

func (r *ruleReader) isLocal(a netip.Addr) bool {
	return a.IsLoopback() || slices.Contains(r.local, a)
}

func negated(not bool, s string) string {
	if not {
		return "not " + s
	}
	return s
}

// number reads a port, which a register holds in network order.
func number(b []byte) uint16 {
	if len(b) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}
