package policyfile_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/policyfile"
)

// FuzzParse: no file crashes the reader, every problem has a place in the
// file, and the policy itself never finds what the reader has not.
func FuzzParse(f *testing.F) {
	f.Add(read(f, "testdata/full.yaml"))
	f.Add(header)
	f.Add("version: &v 1\nfilters: [&f {name: *v, match: {port: [*v, &v 2, *v]}}, *f]")
	f.Add("? [version]\n: 1\n<<: {a: *b}\n!!x y: |\n  z\n\"q\": ~\n")
	lookup := func(string) (uint32, error) { return 7, nil }
	f.Fuzz(func(t *testing.T, data string) {
		if len(data) > 1<<14 {
			return // the YAML parser's time is quadratic in the depth of nesting
		}
		file, err := policyfile.Parse("f", []byte(data), policyfile.Options{CgroupRoot: "/cg", LookupUser: lookup})
		if err == nil {
			if _, err := policy.Compile(file.Policy, policy.Identities{}); err != nil {
				t.Fatal(err)
			}
			return
		}
		var broken *policyfile.Error
		if !errors.As(err, &broken) || len(broken.Problems) == 0 {
			t.Fatalf("error %T without problems", err)
		}
		lines := 1 + strings.Count(data, "\n") + strings.Count(data, "\r")
		for _, p := range broken.Problems {
			if strings.HasPrefix(p.Message, "check ") {
				t.Errorf("found only by the policy: %s", p.Message)
			}
			if p.Line < 1 || p.Line > lines+1 || p.Column < 1 || p.Message == "" || p.Hint == "" {
				t.Errorf("problem %+v in %d lines", p, lines)
			}
		}
	})
}
