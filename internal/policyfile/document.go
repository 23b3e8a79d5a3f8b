package policyfile

import (
	"github.com/goccy/go-yaml/ast"

	"github.com/waybill-net/waybill/internal/policy"
)

// The fields of each mapping of a file.
var (
	documentFields  = []string{"version", "mode", "providers", "filters"}
	providerFields  = []string{"name", "weight", "proxy", "processes", "on-down", "stuck-after", "emulate", "mode", "open-to"}
	proxyFields     = []string{"listen", "listen6", "udp", "udp6"}
	processesFields = []string{"unit", "cgroup", "exec", "user"}
	filterFields    = []string{"name", "provider", "action", "weight", "match", "quic", "context", "context-base64"}
	matchFields     = []string{
		"protocol", "destination", "not-destination", "domain", "port", "program", "original-program", "user", "cgroup", "state",
	}
)

// document is a policy and where each part of it stands.
type document struct {
	object
	shadow    bool
	providers []*provider
	filters   []*filter
}

func (d document) policy() policy.Policy {
	p := policy.Policy{Shadow: d.shadow}
	for _, provider := range d.providers {
		p.Providers = append(p.Providers, provider.Provider)
	}
	for _, f := range d.filters {
		p.Filters = append(p.Filters, f.Filter)
	}
	return p
}

func (r *reader) document(root ast.Node) document {
	d := document{object: r.object(root, "a policy", documentFields...)}
	r.version(d.object)
	d.shadow = r.shadow(d.object)
	for _, n := range r.bounded(d.object, "providers", policy.MaxProviders) {
		d.providers = append(d.providers, r.provider(n))
	}
	for _, n := range r.bounded(d.object, "filters", policy.MaxFilters) {
		d.filters = append(d.filters, r.filter(n))
	}
	return d
}

func (r *reader) version(o object) {
	const hint = "write version: 1"
	if !r.need(o, "the policy", "version", "version: 1 at its beginning") {
		return
	}
	n := o.values["version"]
	if v, ok := r.scalar(n, "version", hint); ok && v != "1" {
		r.problem(n, hint+", the only one that this waybill reads", "unknown version %q", v)
	}
}

func (r *reader) shadow(o object) bool {
	return r.word(o.values["mode"], "mode", "enforce", "shadow") == 1
}

// bounded returns the elements of a list that may be empty, but not too long.
func (r *reader) bounded(o object, field string, most int) []ast.Node {
	if !o.has(field) {
		return nil
	}
	list, ok := o.values[field].(*ast.SequenceNode)
	if !ok {
		r.wrongType(o.at(field), field, `write a list: each element begins with "- name: …"`)
		return nil
	}
	items := r.items(o, field)
	if len(items) > most {
		r.problem(list.Values[most], "this is the first one too many; one filter can name many values", "%d %s, at most %d", len(items), field, most)
		items = items[:most]
	}
	return items
}
