package policyfile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// anchors finds what each alias stands for: the last anchor of its name before
// it. An anchor counts only from its end on, so nothing can contain itself.
type anchors struct {
	byName  map[string]ast.Node
	aliases map[*ast.AliasNode]ast.Node
}

func (a anchors) Visit(n ast.Node) ast.Visitor {
	switch v := n.(type) {
	case *ast.AnchorNode:
		ast.Walk(a, v.Value)
		a.byName[v.Name.GetToken().Value] = v.Value
		return nil
	case *ast.AliasNode:
		if target, ok := a.byName[v.Value.GetToken().Value]; ok {
			a.aliases[v] = target
		}
		return nil
	}
	return a
}

// resolve looks through anchors and aliases. An alias of nothing stays one.
func (r *reader) resolve(n ast.Node) ast.Node {
	for {
		switch v := n.(type) {
		case *ast.AnchorNode:
			n = v.Value
		case *ast.AliasNode:
			target, ok := r.aliases[v]
			if !ok {
				return v
			}
			n = target
		default:
			return n
		}
	}
}

// object is a mapping whose keys are known.
type object struct {
	node   ast.Node
	values map[string]ast.Node
}

func (o object) has(field string) bool { return o.values[field] != nil }

// at returns the place of a field: its value, or the object if it is not given.
func (o object) at(field string) ast.Node {
	if n := o.values[field]; n != nil {
		return n
	}
	return o.node
}

// object reads a mapping. what names it in messages: "a filter".
func (r *reader) object(n ast.Node, what string, known ...string) object {
	o := object{node: n, values: make(map[string]ast.Node)}
	m, ok := n.(*ast.MappingNode)
	if !ok {
		r.wrongType(n, what, "write a mapping with some of the fields "+strings.Join(known, ", "))
		return o
	}
	keys := make(map[string]ast.Node)
	for _, pair := range m.Values {
		name := pair.Key.GetToken().Value
		first, twice := keys[name]
		switch {
		case pair.Key.IsMergeKey():
			r.problem(pair.Key, "write the fields out; an alias can stand for a whole value", `merge key "<<" in %s is not read`, what)
		case !slices.Contains(known, name):
			r.problem(pair.Key, fieldHint(name, known), "unknown field %q in %s", name, what)
		case twice:
			line := first.GetToken().Position.Line
			r.problem(pair.Key, fmt.Sprintf("keep this one or that of line %d", line), "field %q given twice", name)
		default:
			keys[name] = pair.Key
			o.values[name] = r.resolve(pair.Value)
		}
	}
	return o
}

// called is "a provider", or "provider dlp" if it has a name.
func called(what, name string) string {
	if name == "" {
		return what
	}
	return strings.TrimPrefix(what, "a ") + " " + name
}

// need reports a missing field and how to give it.
func (r *reader) need(o object, what, field, example string) bool {
	if o.has(field) {
		return true
	}
	if _, ok := o.node.(*ast.MappingNode); ok {
		r.problem(o.node, "add "+example, "%s has no %s", what, field)
	}
	return false
}

// items returns the elements of a list. A single value stands for a list of one.
func (r *reader) items(o object, field string) []ast.Node {
	n := o.values[field]
	if n == nil {
		return nil
	}
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		return []ast.Node{n}
	}
	var items []ast.Node
	for _, item := range list.Values {
		items = append(items, r.resolve(item))
	}
	return items
}

// values returns the elements of a list that must have some.
func (r *reader) values(o object, field string) []ast.Node {
	items := r.items(o, field)
	if o.has(field) && len(items) == 0 {
		r.problem(o.at(field), "name a value, or leave the field out", "%s is an empty list", field)
	}
	return items
}

// text returns the text of a string.
func (r *reader) text(n ast.Node, field, hint string) (string, bool) {
	var s string
	switch v := n.(type) {
	case *ast.StringNode:
		s = v.Value
	case *ast.LiteralNode:
		s = v.Value.Value
	default:
		r.wrongType(n, field, hint)
		return "", false
	}
	if s == "" {
		r.problem(n, hint, "%s is empty", field)
	}
	return s, s != ""
}

// scalar returns the text of a string or of a number as it was written: 010 is
// not 8, and 1_000 not 1000.
func (r *reader) scalar(n ast.Node, field, hint string) (string, bool) {
	switch n.(type) {
	case *ast.IntegerNode, *ast.FloatNode:
		return n.GetToken().Value, true
	}
	return r.text(n, field, hint)
}

// word returns the index of a word of a list: the first if none is given, -1
// if it is not of the list.
func (r *reader) word(n ast.Node, field string, words ...string) int {
	if n == nil {
		return 0
	}
	s, ok := r.text(n, field, "write one of: "+strings.Join(words, ", "))
	i := slices.Index(words, s)
	if ok && i < 0 {
		r.problem(n, wordHint(s, words), "unknown %s %q", field, s)
	}
	return i
}

func (r *reader) wrongType(n ast.Node, field, hint string) {
	switch v := n.(type) {
	case nil, *ast.NullNode:
		r.problem(n, hint, "%s is empty", field)
	case *ast.MappingNode:
		r.problem(n, hint, "%s is a mapping", field)
	case *ast.SequenceNode:
		r.problem(n, hint, "%s is a list", field)
	case *ast.StringNode:
		r.problem(n, hint, "%s is a text, %q", field, v.Value)
	case *ast.LiteralNode:
		r.problem(n, hint, "%s is a text of several lines", field)
	case *ast.BoolNode:
		r.problem(n, hint, "%s is a boolean, %s", field, v.GetToken().Value)
	case *ast.AliasNode:
		r.problem(n, "put an anchor of this name before it", "%s is the alias of nothing, *%s", field, v.Value.GetToken().Value)
	case *ast.TagNode:
		r.problem(n, "leave the tag out", "%s has the tag %s", field, v.GetToken().Value)
	default:
		r.problem(n, hint, "%s is a number, %s", field, n.GetToken().Value)
	}
}
