package policyfile

import (
	"errors"
	"net/netip"
	"os/user"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/waybill-net/waybill/internal/domain"
	"github.com/waybill-net/waybill/internal/policy"
)

// prefix reads an address or a prefix. An IPv4-mapped one becomes IPv4: so
// the kernel programs see connections.
func (r *reader) prefix(n ast.Node, field string) (netip.Prefix, bool) {
	const hint = `write an address or a prefix: "192.0.2.1" or "2001:db8::/32"`
	text, ok := r.text(n, field, hint)
	if !ok {
		return netip.Prefix{}, false
	}
	p, err := parsePrefix(text)
	switch {
	case err != nil:
		r.problem(n, prefixHint(text, hint), "bad %s %q", field, text)
	case p != p.Masked():
		r.problem(n, "write "+p.Masked().String()+", or the address alone", "%s %q has bits set behind the prefix", field, text)
	case p.IsSingleIP() && p.Addr().IsUnspecified():
		r.problem(n, "connect() to it goes to loopback: write 127.0.0.1 or ::1; or 0.0.0.0/0 or ::/0 for every address", "%s %q matches nothing", field, text)
	default:
		return p, true
	}
	return netip.Prefix{}, false
}

func parsePrefix(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		a, err := netip.ParseAddr(text)
		if err == nil && a.Zone() != "" {
			err = errors.New("address has a zone")
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), err
	}
	p, err := netip.ParsePrefix(text)
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p, err
}

func prefixHint(text, hint string) string {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() != "" {
		return "leave the zone out: write " + a.WithZone("").String()
	}
	if a, err := netip.ParseAddrPort(text); err == nil {
		return "the port is a field of its own: write destination: " + a.Addr().String() + " and port: " + strconv.Itoa(int(a.Port()))
	}
	return hint + "; names of hosts are a field of their own: domain"
}

// domain reads a pattern of names.
func (r *reader) domain(n ast.Node) (string, bool) {
	text, ok := r.text(n, "domain", `write a name, or "*." and a name for everything below it`)
	if !ok {
		return "", false
	}
	pattern, err := domain.Parse(text)
	if err != nil {
		r.problem(n, `write a name such as example.com, or "*.example.com" for everything below it`, "bad domain %q: %v", text, err)
		return "", false
	}
	return pattern, true
}

// ports reads a port or a range of ports.
func (r *reader) ports(n ast.Node) (policy.PortRange, bool) {
	const hint = `write a number from 1 to 65535, or a range such as "8000-8100"`
	text, ok := r.scalar(n, "port", hint)
	if !ok {
		return policy.PortRange{}, false
	}
	low, high, isRange := strings.Cut(text, "-")
	if !isRange {
		high = low
	}
	first, ok1 := parsePort(low)
	last, ok2 := parsePort(high)
	switch {
	case !ok1 || !ok2:
		r.problem(n, hint, "bad port %q", text)
	case first > last:
		r.problem(n, "write "+strconv.Quote(high+"-"+low), "port range %q ends before it begins", text)
	default:
		return policy.PortRange{First: first, Last: last}, true
	}
	return policy.PortRange{}, false
}

func parsePort(s string) (uint16, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && n > 0 && s[0] != '0'
}

// program reads the path of an executable.
func (r *reader) program(n ast.Node, field string) (string, bool) {
	const hint = "write the whole path from / on: /usr/bin/curl"
	p, ok := r.text(n, field, hint)
	switch {
	case !ok:
		return "", false
	case !path.IsAbs(p):
		r.problem(n, hint, "%s path %q is relative", field, p)
		return "", false
	case strings.HasSuffix(p, "/"):
		r.problem(n, "name each program; a directory stands for none", "%s path %q is a directory", field, p)
		return "", false
	}
	return p, true
}

// cgroup reads a path in the cgroup v2 hierarchy and returns the directory.
func (r *reader) cgroup(n ast.Node) (string, bool) {
	const hint = "write the path in the cgroup v2 hierarchy from / on: /user.slice"
	p, ok := r.text(n, "cgroup", hint)
	switch {
	case !ok:
		return "", false
	case !path.IsAbs(p):
		r.problem(n, hint, "cgroup path %q is relative", p)
		return "", false
	case slices.Contains(strings.Split(p, "/"), ".."):
		r.problem(n, "write "+path.Clean(p), "cgroup path %q goes up", p)
		return "", false
	}
	return r.cgroupPath(p), true
}

func (r *reader) cgroupPath(p string) string {
	if root := r.opts.CgroupRoot; !isBelow(path.Clean(p), path.Clean(root)) {
		p = path.Join(root, p)
	}
	return path.Clean(p)
}

// isBelow reports whether a clean path is dir or in it.
func isBelow(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}

// user reads the name or the number of a user.
func (r *reader) user(n ast.Node) (name string, uid uint32, ok bool) {
	name, ok = r.scalar(n, "user", "write the name or the number of a user")
	if !ok {
		return "", 0, false
	}
	if number, err := strconv.ParseUint(name, 10, 32); err == nil {
		return name, uint32(number), true
	}
	if uid, ok = r.uids[name]; ok {
		return name, uid, true
	}
	uid, err := r.opts.LookupUser(name)
	var unknown user.UnknownUserError
	switch {
	case err == nil:
		r.uids[name] = uid
		return name, uid, true
	case errors.As(err, &unknown):
		r.problem(n, "give the number, or create the user", "no user %q on this host", name)
	default:
		r.problem(n, "give the number, or create the user", "look up user %q: %v", name, err)
	}
	return "", 0, false
}
