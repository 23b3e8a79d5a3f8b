// Package policyfile reads policy files: YAML that people write, checked as a
// whole. docs/policy.md is the reference of the format.
//
// Whatever is wrong is reported with its place, its value and what to write
// instead, all of it at once. What is right but hardly meant is a warning.
package policyfile

import (
	"cmp"
	_ "embed"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/waybill-net/waybill/internal/policy"
)

// Options of [Parse]. The zero value is for a policy of this host whose cgroup
// paths are taken as they are.
type Options struct {
	// CgroupRoot is the directory where cgroup v2 is mounted. It is prepended
	// to the paths of cgroups that do not begin with it already.
	CgroupRoot string

	// LookupUser returns the number of a user; nil: that of this host.
	LookupUser func(name string) (uint32, error)
}

// File is what a policy file says.
type File struct {
	Policy   policy.Policy
	Warnings []Problem
}

// Problem is something to change in a policy file.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`   // the first is 1
	Column  int    `json:"column"` // in characters; the first is 1
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func (p Problem) String() string { return p.Text("") }

// Text is the problem as compilers print one, with a label before the
// message: "warning: " or nothing.
func (p Problem) Text(label string) string {
	s := fmt.Sprintf("%s:%d:%d: %s%s", p.File, p.Line, p.Column, label, p.Message)
	if p.Hint != "" {
		s += "\n  hint: " + p.Hint
	}
	return s
}

// Error is the error of [Parse]: every problem of a file, in its order.
type Error struct {
	Problems []Problem
}

func (e *Error) Error() string {
	var lines []string
	for _, p := range e.Problems {
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

// Parse reads a policy file. name is for messages. The error is an [*Error].
func Parse(name string, data []byte, opts Options) (*File, error) {
	r := newReader(name, opts)
	var d document
	if root := r.parse(data); root != nil {
		d = r.document(root)
		r.checkProviders(d.providers)
		r.checkFilters(d)
	}
	if len(r.problems) == 0 {
		// The last word is the policy's own: a check that it has and this
		// package has not must not come to light only when it is applied.
		if _, err := policy.Compile(d.policy(), policy.Identities{}); err != nil {
			r.problem(nil, "", "%v", err)
		}
	}
	if len(r.problems) > 0 {
		sortByPlace(r.problems)
		return nil, &Error{r.problems}
	}
	r.warnProviders(d)
	r.warnFilters(d)
	sortByPlace(r.warnings)
	return &File{Policy: d.policy(), Warnings: r.warnings}, nil
}

func sortByPlace(problems []Problem) {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

func lookupUser(name string) (uint32, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	return uint32(uid), err
}

//go:embed schema.json
var schema []byte

// Schema returns the JSON Schema of policy files, for editors.
func Schema() []byte { return slices.Clone(schema) }
