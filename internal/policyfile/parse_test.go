package policyfile_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/policyfile"
)

// parse is for files that are right; it returns the warnings as text.
func parse(t testing.TB, data string) (policy.Policy, string) {
	t.Helper()
	file, err := policyfile.Parse("policy.yaml", []byte(data), policyfile.Options{CgroupRoot: "/cg"})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, w := range file.Warnings {
		lines = append(lines, w.Text("warning: "))
	}
	return file.Policy, strings.Join(lines, "\n")
}

func read(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestEveryField(t *testing.T) {
	got, warnings := parse(t, read(t, "testdata/full.yaml"))
	addr, prefix := netip.MustParseAddrPort, netip.MustParsePrefix
	want := policy.Policy{
		Shadow: true,
		Providers: []policy.Provider{
			{
				Name: "dlp", Weight: 200, Listen: addr("127.0.0.1:7001"), Listen6: addr("[::1]:7001"),
				UDP: addr("127.0.0.1:7001"), UDP6: addr("[::1]:7001"),
				Unit: "dlp.service", OnDown: policy.Block, StuckAfter: 1500 * time.Millisecond, Emulate: policy.EmulateTPROXY, Shadow: true, OpenTo: []string{"devs"},
			},
			{
				Name: "adblock", Weight: 100, Listen: addr("192.0.2.7:7002"), Listen6: addr("[::1]:7002"),
				Cgroup: "/cg/system.slice/adblock.service", OpenTo: []string{"devs"},
			},
			{
				Name: "debug", Weight: -1, Listen: addr("127.0.0.1:7003"), Listen6: addr("[::1]:7003"),
				UDP: addr("127.0.0.1:7003"), UDP6: addr("[::1]:7004"),
				Exec: []string{"mitmdump", "--listen-port", "7003"}, User: "65534",
			},
		},
		Filters: []policy.Filter{
			{
				Name: "web", Provider: "dlp", Weight: 10, Protocols: []policy.Protocol{policy.TCP, policy.UDP},
				Destination:      []netip.Prefix{prefix("0.0.0.0/0"), prefix("::/0"), prefix("127.0.0.1/32")},
				NotDestination:   []netip.Prefix{prefix("10.0.0.0/8")},
				Ports:            []policy.PortRange{policy.Port(80), policy.Port(443), {First: 8000, Last: 8100}, policy.Port(8443)},
				Programs:         []string{"/usr/bin/curl"},
				OriginalPrograms: []string{"/usr/bin/curl"},
				Users:            []string{"0", "1000"},
				Cgroups:          []string{"/cg/user.slice"},
				States:           []policy.State{policy.NotRedirected, policy.RedirectedByOther},
				Context:          []byte("tenant=42"),
			},
			{
				Name: "web-too", Provider: "adblock", OriginalPrograms: []string{"/usr/bin/curl"},
				States: []policy.State{policy.NotRedirected}, Context: []byte("tenant=42"),
			},
			{
				Name: "tcp-only", Provider: "debug", Weight: 1,
				Domains: []string{"example.com", "*.xn--bcher-kva.example"}, Ports: []policy.PortRange{policy.Port(443)}, DropQUIC: true,
			},
			{Name: "everything", Provider: "debug"},
			{
				Name: "allowed", Provider: "dlp", Action: policy.ActionPermit, Weight: 2,
				Users: []string{"root"}, OriginalPrograms: []string{"/usr/bin/curl"},
			},
			{
				Name: "seen-before", Provider: "dlp", Action: policy.ActionBlock, Weight: 1,
				States: []policy.State{policy.PreviouslyRedirectedBySelf, policy.RedirectedBySelf},
			},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v, want\n%+v", got, want)
	}
	if warnings != "" {
		t.Error(warnings)
	}
}

// TestAllProblemsAtOnce: one run finds every mistake, in the order of the file.
func TestAllProblemsAtOnce(t *testing.T) {
	_, err := policyfile.Parse("policy.yaml", []byte(`version: 1
providers:
  - name: dlp
    proxy: {listen: "127.0.0.1:0"}
    processes: {unit: dlp}
filters:
  - name: web
    provider: dpl
    action: redirct
    match: {port: [0, 443, x], destination: "10.0.0.1/8", state: redirected-by-self}
    context: "a"
`), policyfile.Options{})
	var broken *policyfile.Error
	if !errors.As(err, &broken) {
		t.Fatalf("error is %T", err)
	}
	var got []string
	for _, p := range broken.Problems {
		got = append(got, fmt.Sprintf("%d:%d %s", p.Line, p.Column, p.Message))
	}
	want := []string{
		"4:21 listen address 127.0.0.1:0 has port 0",
		`5:23 unit "dlp" has no suffix`,
		`8:15 unknown provider "dpl"`,
		`9:13 unknown action "redirct"`,
		`10:20 bad port "0"`,
		`10:28 bad port "x"`,
		`10:45 destination "10.0.0.1/8" has bits set behind the prefix`,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if text := err.Error(); !strings.HasPrefix(text, "policy.yaml:4:21: listen address 127.0.0.1:0 has port 0\n  hint: write the port") {
		t.Errorf("error %q", text)
	}
	if data, err := json.Marshal(broken.Problems[1]); err != nil ||
		string(data) != `{"file":"policy.yaml","line":5,"column":23,"message":"unit \"dlp\" has no suffix","hint":"write dlp.service"}` {
		t.Errorf("%s, %v", data, err)
	}
}

func TestCgroupPaths(t *testing.T) {
	for _, tt := range []struct{ root, path, want string }{
		{"/cg", "/user.slice", "/cg/user.slice"},
		{"/cg", "/cg/user.slice", "/cg/user.slice"},
		{"/cg", "/cg", "/cg"},
		{"/cg", "/cgroup", "/cg/cgroup"},
		{"/cg", "/", "/cg"},
		{"/cg/", "/a//b/", "/cg/a/b"},
		{"", "/user.slice/", "/user.slice"},
	} {
		data := header + "filters: [{name: f, provider: dlp, match: {cgroup: \"" + tt.path + "\"}}]\n"
		file, err := policyfile.Parse("policy.yaml", []byte(data), policyfile.Options{CgroupRoot: tt.root})
		if err != nil {
			t.Fatal(err)
		}
		if got := file.Policy.Filters[0].Cgroups[0]; got != tt.want {
			t.Errorf("%s with root %q: %s, want %s", tt.path, tt.root, got, tt.want)
		}
	}
}

func TestLookupUser(t *testing.T) {
	data := header + "filters: [{name: f, provider: dlp, match: {user: [alice, bob, alice, 7]}}]\n"
	asked := ""
	lookup := func(name string) (uint32, error) {
		asked += name + " "
		if name == "bob" {
			return 0, errors.New("directory is away")
		}
		return 1000, nil
	}
	_, err := policyfile.Parse("policy.yaml", []byte(data), policyfile.Options{LookupUser: lookup})
	if err == nil || !strings.Contains(err.Error(), `policy.yaml:6:58: look up user "bob": directory is away`) {
		t.Errorf("error %v", err)
	}
	if asked != "alice bob " {
		t.Errorf("asked for %s", asked)
	}
}

const header = `version: 1
providers:
  - name: dlp
    proxy: {listen: "127.0.0.1:7001", listen6: "[::1]:7001"}
    processes: {unit: dlp.service}
`
