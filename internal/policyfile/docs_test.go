package policyfile_test

import (
	"bytes"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/waybill-net/waybill/internal/policyfile"
)

// examples are the policies in docs/policy.md.
func examples(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, m := range regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$").FindAllStringSubmatch(read(t, "../../docs/policy.md"), -1) {
		found = append(found, m[1])
	}
	if len(found) < 5 {
		t.Fatalf("%d examples in docs/policy.md", len(found))
	}
	return found
}

func TestExamplesInDocs(t *testing.T) {
	for _, example := range examples(t) {
		if _, warnings := parse(t, example); warnings != "" {
			t.Errorf("%s\n%s", warnings, example)
		}
	}
}

func TestDocsNameEveryField(t *testing.T) {
	docs := read(t, "../../docs/policy.md")
	for _, field := range schemaFields(t) {
		if !strings.Contains(docs, "`"+field+"`") {
			t.Errorf("docs/policy.md does not name %s", field)
		}
	}
}

// TestSchema: the schema takes what Parse takes, and refuses what it can see
// to be wrong.
func TestSchema(t *testing.T) {
	schema := compileSchema(t)
	for _, good := range append(examples(t), read(t, "testdata/full.yaml"), header) {
		if err := schema.Validate(decode(t, good)); err != nil {
			t.Errorf("%v\n%s", err, good)
		}
	}
	for _, bad := range []string{
		"{}",
		"version: 2",
		"{version: 1, provider: []}",
		"{version: 1, mode: on}",
		header + "    on-down: blok",
		header + "    listen: 127.0.0.1:7001",
		strings.Replace(header, "unit: dlp.service", "unit: dlp.service, user: root", 1),
		strings.Replace(header, "unit: dlp.service", "unit: dlp.service, cgroup: /dlp", 1),
		strings.Replace(header, "name: dlp", "name: DLP", 1),
		header + "filters: [{name: web}]",
		header + "filters: [{name: web, provider: dlp, action: redirct}]",
		header + "filters: [{name: web, provider: dlp, match: {port: true}}]",
		header + "filters: [{name: web, provider: dlp, match: {port: []}}]",
		header + "filters: [{name: web, provider: dlp, match: {port: 65536}}]",
		header + "filters: [{name: web, provider: dlp, match: {protocol: sctp}}]",
		header + "filters: [{name: web, provider: dlp, match: {program: curl}}]",
		header + "filters: [{name: web, provider: dlp, context: a, context-base64: YQ==}]",
	} {
		if schema.Validate(decode(t, bad)) == nil {
			t.Errorf("schema takes\n%s", bad)
		}
		if _, err := policyfile.Parse("policy.yaml", []byte(bad), policyfile.Options{}); err == nil {
			t.Errorf("Parse takes\n%s", bad)
		}
	}
}

// TestSchemaHasNoFieldMore: every field of the schema is one that Parse reads.
func TestSchemaHasNoFieldMore(t *testing.T) {
	full := read(t, "testdata/full.yaml")
	for _, field := range schemaFields(t) {
		if !strings.Contains(full, field+":") {
			t.Errorf("testdata/full.yaml, which Parse takes, has no %s", field)
		}
	}
}

func schemaFields(t *testing.T) []string {
	t.Helper()
	var fields []string
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if properties, ok := v["properties"].(map[string]any); ok {
				for name := range properties {
					fields = append(fields, name)
				}
			}
			for _, child := range v {
				walk(child)
			}
		case []any:
			for _, child := range v {
				walk(child)
			}
		}
	}
	var root any
	if err := json.Unmarshal(policyfile.Schema(), &root); err != nil {
		t.Fatal(err)
	}
	walk(root)
	if len(fields) < 30 {
		t.Fatalf("%d fields in the schema", len(fields))
	}
	slices.Sort(fields)
	return slices.Compact(fields)
}

func compileSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(policyfile.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("policy.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("policy.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// decode reads YAML as an editor does.
func decode(t *testing.T, data string) any {
	t.Helper()
	asJSON, err := yaml.YAMLToJSON([]byte(data))
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		t.Fatal(err)
	}
	return v
}
