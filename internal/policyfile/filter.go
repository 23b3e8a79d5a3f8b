package policyfile

import (
	"encoding/base64"
	"net/netip"
	"slices"

	"github.com/goccy/go-yaml/ast"

	"github.com/waybill-net/waybill/internal/policy"
)

// filter is a [policy.Filter] and where its fields stand.
type filter struct {
	policy.Filter
	object
	match object
	uids  []uint32 // of Users
}

func (r *reader) filter(n ast.Node) *filter {
	f := &filter{object: r.object(n, "a filter", filterFields...)}
	if r.need(f.object, "a filter", "name", "a name, such as name: web") {
		f.Name, _ = r.text(f.values["name"], "name", "write a name, in quotes if it is a number")
	}
	if r.need(f.object, called("a filter", f.Name), "provider", "the name of its provider: provider: dlp") {
		f.Provider, _ = r.text(f.values["provider"], "provider", "write the name of a provider of this file")
	}
	f.Action = policy.Action(r.word(f.values["action"], "action", "redirect", "permit", "block"))
	f.Weight = r.weight(f.object)
	if f.has("match") {
		f.match = r.object(f.values["match"], "match", matchFields...)
		r.match(f)
	}
	r.quic(f)
	r.context(f)
	return f
}

func (r *reader) match(f *filter) {
	f.Protocols = r.protocols(f.match)
	f.Destination = r.prefixes(f.match, "destination")
	f.NotDestination = r.prefixes(f.match, "not-destination")
	for _, n := range r.values(f.match, "domain") {
		if pattern, ok := r.domain(n); ok {
			f.Domains = append(f.Domains, pattern)
		}
	}
	for _, n := range r.values(f.match, "port") {
		if p, ok := r.ports(n); ok {
			f.Ports = append(f.Ports, p)
		}
	}
	f.Programs = r.programs(f.match, "program")
	f.OriginalPrograms = r.programs(f.match, "original-program")
	for _, n := range r.values(f.match, "user") {
		if name, uid, ok := r.user(n); ok {
			f.Users = append(f.Users, name)
			f.uids = append(f.uids, uid)
		}
	}
	for _, n := range r.values(f.match, "cgroup") {
		if dir, ok := r.cgroup(n); ok {
			f.Cgroups = append(f.Cgroups, dir)
		}
	}
	r.states(f)
}

func (r *reader) protocols(o object) []policy.Protocol {
	var protocols []policy.Protocol
	for _, n := range r.values(o, "protocol") {
		switch r.word(n, "protocol", "tcp", "udp") {
		case 0:
			protocols = append(protocols, policy.TCP)
		case 1:
			protocols = append(protocols, policy.UDP)
		}
	}
	return protocols
}

func (r *reader) prefixes(o object, field string) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, n := range r.values(o, field) {
		if p, ok := r.prefix(n, field); ok {
			prefixes = append(prefixes, p)
		}
	}
	return prefixes
}

func (r *reader) programs(o object, field string) []string {
	var programs []string
	for _, n := range r.values(o, field) {
		if p, ok := r.program(n, field); ok {
			programs = append(programs, p)
		}
	}
	return programs
}

func (r *reader) states(f *filter) {
	var words []string
	for s := policy.NotRedirected; s <= policy.PreviouslyRedirectedBySelf; s++ {
		words = append(words, s.String())
	}
	for _, n := range r.values(f.match, "state") {
		s := policy.State(r.word(n, "state", words...))
		if s >= 0 && f.Action == policy.ActionRedirect && !s.MayRedirect() {
			r.problem(n, "leave it out, or make the action permit or block", "a connection in state %q is never redirected", s)
		}
		f.States = append(f.States, s)
	}
}

func (r *reader) quic(f *filter) {
	n := f.values["quic"]
	switch f.DropQUIC = r.word(n, "quic", "pass", "drop") == 1; {
	case !f.DropQUIC:
		return
	case f.Action == policy.ActionPermit || f.Action == policy.ActionBlock:
		r.problem(n, "leave it out; a block of UDP is a filter with protocol: udp", "quic: drop with the action %q", f.Action)
	case slices.Contains(f.Protocols, policy.UDP):
		r.problem(n, "leave it out, or udp from protocol: the proxy that takes QUIC need not be without it", "quic: drop in a filter that redirects UDP")
	case len(f.Ports) == 0 && !f.match.has("port"):
		r.problem(n, "name those on which servers speak QUIC: port: 443", "quic: drop without a port: all UDP to the filter's ports is refused")
	}
	if slices.ContainsFunc(f.Ports, func(p policy.PortRange) bool { return p.First <= portOfDNS && portOfDNS <= p.Last }) && f.DropQUIC {
		r.warning(n, "take port 53 out of the filter, or give QUIC a filter of its own", "quic: drop refuses all UDP to port 53, which is that of DNS")
	}
}

const portOfDNS = 53

func (r *reader) context(f *filter) {
	plain, encoded := f.values["context"], f.values["context-base64"]
	n, field := plain, "context"
	if plain == nil {
		n, field = encoded, "context-base64"
	}
	switch {
	case n == nil:
		return
	case plain != nil && encoded != nil:
		r.problem(encoded, "keep one of the two", "context and context-base64 in one filter")
	case f.Action == policy.ActionPermit || f.Action == policy.ActionBlock:
		r.problem(n, "only a proxy is given it: leave it out, or make the action redirect", "%s with the action %q", field, f.Action)
	}
	text, ok := r.text(n, field, "write a text in quotes")
	if !ok {
		return
	}
	context := []byte(text)
	if n == encoded {
		var err error
		if context, err = base64.StdEncoding.DecodeString(text); err != nil {
			r.problem(n, "write standard base64 with its padding, as base64(1) does", "bad context-base64 %q", text)
		}
	}
	if len(context) > policy.MaxContext {
		r.problem(n, "let the proxy look up the rest", "context of %d bytes, at most %d", len(context), policy.MaxContext)
		return
	}
	f.Context = context
}
