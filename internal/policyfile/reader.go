package policyfile

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxSize is far above the largest policy that the kernel programs take.
const maxSize = 16 << 20

// reader walks the tree of one file. It goes on after a problem, with the zero
// value in place of what is wrong, to find the others.
type reader struct {
	name     string
	opts     Options
	uids     map[string]uint32 // of users that were looked up
	aliases  map[*ast.AliasNode]ast.Node
	problems []Problem
	warnings []Problem
}

func newReader(name string, opts Options) *reader {
	if opts.LookupUser == nil {
		opts.LookupUser = lookupUser
	}
	return &reader{
		name:    name,
		opts:    opts,
		uids:    make(map[string]uint32),
		aliases: make(map[*ast.AliasNode]ast.Node),
	}
}

func (r *reader) problem(at ast.Node, hint, format string, args ...any) {
	r.problems = append(r.problems, r.place(at, hint, fmt.Sprintf(format, args...)))
}

func (r *reader) warning(at ast.Node, hint, format string, args ...any) {
	r.warnings = append(r.warnings, r.place(at, hint, fmt.Sprintf(format, args...)))
}

func (r *reader) place(at ast.Node, hint, message string) Problem {
	p := Problem{File: r.name, Line: 1, Column: 1, Message: message, Hint: hint}
	// The token of a block mapping is the colon behind its first key.
	if m, ok := at.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		at = m.Values[0].Key
	}
	if at != nil && at.GetToken() != nil {
		p.Line, p.Column = at.GetToken().Position.Line, at.GetToken().Position.Column
	}
	return p
}

// parse returns the root of the only document, nil if there is no such thing.
func (r *reader) parse(data []byte) ast.Node {
	if len(data) > maxSize {
		r.problem(nil, "split the policy, or name fewer values", "file of %d bytes, at most %d", len(data), maxSize)
		return nil
	}
	if !utf8.Valid(data) {
		r.problem(nil, "save it as UTF-8", "file is not UTF-8 text")
		return nil
	}
	// Duplicates are looked for in object, which says what came first.
	file, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		r.syntax(err)
		return nil
	}
	var roots []ast.Node
	for _, d := range file.Docs {
		if _, directive := d.Body.(*ast.DirectiveNode); d.Body != nil && !directive {
			roots = append(roots, d.Body)
		}
	}
	switch len(roots) {
	case 0:
		r.problem(nil, "begin it with version: 1", "file is empty")
		return nil
	case 1:
		a := anchors{byName: make(map[string]ast.Node), aliases: r.aliases}
		ast.Walk(a, roots[0])
		return r.resolve(roots[0])
	}
	r.problem(roots[1], "put it into a file of its own", "second document in one file")
	return nil
}

func (r *reader) syntax(err error) {
	p := Problem{File: r.name, Line: 1, Column: 1, Message: err.Error()}
	p.Hint = "it is not YAML from here on: look at the indentation, the colons and the quotes"
	var placed yaml.Error
	if errors.As(err, &placed) && placed.GetToken() != nil {
		tk := placed.GetToken()
		p.Line, p.Column, p.Message = tk.Position.Line, tk.Position.Column, placed.GetMessage()
		if line, _, _ := strings.Cut(strings.TrimSpace(tk.Value), "\n"); line != "" {
			p.Message += fmt.Sprintf(", at %q", line)
		}
	}
	if strings.Contains(p.Message, "\t") {
		p.Message = strings.ReplaceAll(p.Message, "\t", `\t`)
		p.Hint = "indent with spaces: YAML has no tabs there"
	}
	r.problems = append(r.problems, p)
}
