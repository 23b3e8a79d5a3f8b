package policyfile

import (
	"net/netip"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/waybill-net/waybill/internal/policy"
)

// provider is a [policy.Provider] and where its fields stand.
type provider struct {
	policy.Provider
	object
	proxy     object
	processes object
}

// validName is the rule of internal/policy, here with a place for what breaks it.
var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

func (r *reader) provider(n ast.Node) *provider {
	p := &provider{object: r.object(n, "a provider", providerFields...)}
	const nameHint = "1 to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first: dlp"
	if r.need(p.object, "a provider", "name", "a name, such as name: dlp") {
		p.Name, _ = r.text(p.values["name"], "name", nameHint)
	}
	if p.Name != "" && !validName.MatchString(p.Name) {
		r.problem(p.at("name"), nameHint, "bad provider name %q", p.Name)
	}
	p.Weight = r.weight(p.object)
	if r.need(p.object, called("a provider", p.Name), "proxy", `where it listens: proxy: {listen: "127.0.0.1:7001"}`) {
		r.proxy(p)
	}
	if r.need(p.object, called("a provider", p.Name), "processes", "who they are: processes: {unit: dlp.service}") {
		r.processes(p)
	}
	p.OnDown = policy.OnDown(r.word(p.values["on-down"], "on-down", "bypass", "block"))
	p.StuckAfter = r.stuckAfter(p.values["stuck-after"])
	p.Emulate = policy.Emulation(r.word(p.values["emulate"], "emulate", "redirect", "tproxy"))
	p.Shadow = r.shadow(p.object)
	for _, n := range r.values(p.object, "open-to") {
		if group, ok := r.scalar(n, "open-to", "write the name of a group"); ok {
			p.OpenTo = append(p.OpenTo, group)
		}
	}
	return p
}

func (r *reader) stuckAfter(n ast.Node) time.Duration {
	if n == nil {
		return 0
	}
	const hint = "write a time from 10ms to 1h, such as 2s"
	text, ok := r.text(n, "stuck-after", hint)
	if !ok {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < policy.MinStuckAfter || d > policy.MaxStuckAfter {
		r.problem(n, hint, "bad stuck-after %q", text)
	}
	return d
}

// weight is the same for providers and filters.
func (r *reader) weight(o object) int32 {
	n := o.values["weight"]
	if n == nil {
		return 0
	}
	const hint = "write a whole number from -2147483648 to 2147483647; the highest comes first"
	if _, ok := n.(*ast.IntegerNode); !ok {
		r.wrongType(n, "weight", hint)
		return 0
	}
	text := n.GetToken().Value
	w, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		r.problem(n, hint, "bad weight %s", text)
	}
	return int32(w)
}

func (r *reader) proxy(p *provider) {
	p.proxy = r.object(p.values["proxy"], "a proxy", proxyFields...)
	p.Listen = r.listen(p.proxy, "listen")
	p.Listen6 = r.listen(p.proxy, "listen6")
	p.UDP = r.listen(p.proxy, "udp")
	p.UDP6 = r.listen(p.proxy, "udp6")
	if m, ok := p.proxy.node.(*ast.MappingNode); ok && len(m.Values) == 0 {
		r.problem(m, "give listen, listen6, udp or udp6", "proxy of %s has no address", called("a provider", p.Name))
	}
}

// listen reads the address of a proxy: one to connect to, of the field's family.
func (r *reader) listen(o object, field string) netip.AddrPort {
	n := o.values[field]
	if n == nil {
		return netip.AddrPort{}
	}
	example, for4, for6 := `"127.0.0.1:7001"`, field, field+"6"
	if strings.HasSuffix(field, "6") {
		example, for4, for6 = `"[::1]:7001"`, strings.TrimSuffix(field, "6"), field
	}
	hint := "write an address and a port: " + field + ": " + example
	text, ok := r.text(n, field, hint)
	if !ok {
		return netip.AddrPort{}
	}
	a, err := netip.ParseAddrPort(text)
	addr := a.Addr()
	switch {
	case err != nil:
		r.problem(n, hint, "bad %s address %q", field, text)
	case addr.Is4In6():
		r.problem(n, "write "+for4+": "+strconv.Quote(netip.AddrPortFrom(addr.Unmap(), a.Port()).String()), "%s address %s is IPv4 in the form of IPv6", field, a)
	case addr.Is6() && field == for4:
		r.problem(n, "write "+for6+": "+strconv.Quote(text), "%s address %s is IPv6", field, a)
	case addr.Is4() && field == for6:
		r.problem(n, "write "+for4+": "+strconv.Quote(text), "%s address %s is IPv4", field, a)
	case a.Port() == 0:
		r.problem(n, "write the port on which the proxy listens", "%s address %s has port 0", field, a)
	case addr.IsUnspecified() || addr.IsMulticast():
		r.problem(n, "write one address on which the proxy listens, such as "+example, "%s address %s is not one to connect to", field, a)
	case addr.Zone() != "":
		r.problem(n, "write an address without a zone, such as "+example, "%s address %s has a zone", field, a)
	default:
		return a
	}
	return netip.AddrPort{}
}

func (r *reader) processes(p *provider) {
	o := r.object(p.values["processes"], "processes", processesFields...)
	p.processes = o
	m, ok := o.node.(*ast.MappingNode)
	if !ok {
		return
	}
	given := 0
	for _, field := range []string{"unit", "cgroup", "exec"} {
		if o.has(field) {
			given++
		}
	}
	if given != 1 {
		r.problem(m, "give exactly one of unit, cgroup and exec", "processes of %s are given in %d ways", called("a provider", p.Name), given)
	}
	r.unit(p)
	r.home(p)
	r.exec(p)
}

func (r *reader) unit(p *provider) {
	n := p.processes.values["unit"]
	if n == nil {
		return
	}
	const hint = "write a unit of systemd: dlp.service"
	unit, ok := r.text(n, "unit", hint)
	switch suffix := path.Ext(unit); {
	case !ok:
	case suffix == "":
		r.problem(n, "write "+unit+".service", "unit %q has no suffix", unit)
	case suffix != ".service" && suffix != ".scope" && suffix != ".slice":
		r.problem(n, "write one that has processes: a .service, .scope or .slice", "unit %q has the suffix %q", unit, suffix)
	case unit == suffix || strings.ContainsAny(unit, "/ \t\n"):
		r.problem(n, hint, "bad unit %q", unit)
	default:
		p.Unit = unit
	}
}

// home is the cgroup that a provider has for itself.
func (r *reader) home(p *provider) {
	n := p.processes.values["cgroup"]
	if n == nil {
		return
	}
	dir, ok := r.cgroup(n)
	if ok && dir == r.cgroupPath("/") {
		r.problem(n, "give the proxy a cgroup of its own, such as /system.slice/dlp.service",
			"cgroup %q holds every process, not those of one provider", n.GetToken().Value)
		return
	}
	p.Cgroup = dir
}

func (r *reader) exec(p *provider) {
	for i, n := range r.values(p.processes, "exec") {
		arg, ok := r.scalar(n, "exec", `write the command and its arguments as a list: ["/usr/bin/dlp", "--port", "7001"]`)
		if ok && i == 0 && strings.Contains(arg, "/") && !path.IsAbs(arg) {
			r.problem(n, "write the whole path from / on, or a name to be found in PATH", "exec path %q is relative", arg)
		}
		p.Exec = append(p.Exec, arg)
	}
	n := p.processes.values["user"]
	switch {
	case n == nil:
	case !p.processes.has("exec"):
		r.problem(n, "a user is only for exec: leave it out", "user %q without exec", n.GetToken().Value)
	default:
		p.User, _, _ = r.user(n)
	}
}
