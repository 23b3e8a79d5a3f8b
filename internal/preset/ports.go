//go:build linux

package preset

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/waybill-net/waybill/internal/policy"
)

// FreePort returns a TCP port that is free at all of the addresses. Nothing
// keeps it free: a proxy that finds it taken says so and ends.
func FreePort(addrs ...netip.Addr) (uint16, error) {
	const attempts = 16
	var err error
	for range attempts {
		var port uint16
		if port, err = tryPort(addrs); err == nil {
			return port, nil
		}
	}
	return 0, fmt.Errorf("find a free port: %w", err)
}

// tryPort asks the kernel for a port at the first address and tries it at the
// others.
func tryPort(addrs []netip.Addr) (port uint16, err error) {
	for _, a := range addrs {
		l, lerr := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, port)))
		if lerr != nil {
			return 0, lerr
		}
		defer l.Close()
		port = l.Addr().(*net.TCPAddr).AddrPort().Port()
	}
	return port, nil
}

// ParsePorts reads ports and ranges such as "80,443,8000-8999".
func ParsePorts(s string) ([]policy.PortRange, error) {
	var ranges []policy.PortRange
	for field := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(field, "-")
		if !isRange {
			last = first
		}
		a, aerr := strconv.ParseUint(first, 10, 16)
		b, berr := strconv.ParseUint(last, 10, 16)
		if err := errors.Join(aerr, berr); err != nil || a > b {
			return nil, fmt.Errorf("read ports %q: want numbers and ranges up to 65535, such as 80,443,8000-8999", s)
		}
		ranges = append(ranges, policy.PortRange{First: uint16(a), Last: uint16(b)})
	}
	return ranges, nil
}

// CommonPorts returns the ports that are in both lists; an empty list has all.
// ok is false if there are none.
func CommonPorts(a, b []policy.PortRange) (common []policy.PortRange, ok bool) {
	if len(a) == 0 || len(b) == 0 {
		return append(a[:len(a):len(a)], b...), true
	}
	for _, x := range a {
		for _, y := range b {
			if r := (policy.PortRange{First: max(x.First, y.First), Last: min(x.Last, y.Last)}); r.First <= r.Last {
				common = append(common, r)
			}
		}
	}
	return common, len(common) > 0
}
