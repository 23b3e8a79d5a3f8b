package waybill_test

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/waybill-net/waybill"

// TestImports holds the direction in which packages depend on each other: see
// ARCHITECTURE.md.
func TestImports(t *testing.T) {
	for _, tt := range []struct {
		pkg     string
		allowed []string // beside the standard library
		why     string
	}{
		{"", []string{module + "/internal/datagram", module + "/internal/wfp", "golang.org/x/sys"}, "whoever imports the library compiles it and x/sys, nothing else"},
		{"/internal/wfp", []string{"golang.org/x/sys"}, "it is a part of the library"},
		{"/internal/datagram", []string{module + "/internal/wfp", "golang.org/x/sys"}, "it is a part of the library"},
		{"/internal/domain", []string{"golang.org/x/net", "golang.org/x/text"}, "names are texts"},
		{"/internal/policy", []string{module + "/internal/domain", "golang.org/x/net", "golang.org/x/text"}, "the policy is pure"},
		{"/internal/flow", nil, "the words for what happens are pure"},
		{"/internal/policyfile", []string{
			module + "/internal/policy", module + "/internal/domain", "golang.org/x/net", "golang.org/x/text",
			"github.com/goccy/go-yaml", "github.com/agnivade/levenshtein", "go4.org/netipx",
		}, "a file is read the same everywhere"},
		{"/internal/quic", nil, "what a datagram says is read with the standard library alone"},
		{"/internal/cgroup", nil, "files and processes are the standard library's"},
		{"/internal/proxy", []string{module, module + "/internal/datagram", "golang.org/x/sys"}, "our own proxy has no more than everybody's"},
		{"/internal/dns", []string{
			module + "/internal/domain", "github.com/miekg/dns", "github.com/hashicorp/golang-lru/v2",
			"golang.org/x/net", "golang.org/x/sys", "golang.org/x/text", // also by miekg/dns and idna
		}, "messages are bytes: who reads them needs no socket"},
		{"/internal/engine", []string{
			module + "/internal/policy", module + "/internal/domain", module + "/internal/flow", module + "/internal/identity", module + "/internal/cgroup",
			"github.com/cilium/ebpf", "github.com/hashicorp/golang-lru/v2", "golang.org/x/sys", "golang.org/x/net", "golang.org/x/text",
		}, "the engine knows nothing of what is built on it"},
		{"/internal/routes", []string{
			module + "/internal/engine", module + "/internal/policy", module + "/internal/domain", module + "/internal/flow", module + "/internal/identity", module + "/internal/cgroup",
			"github.com/cilium/ebpf", "github.com/hashicorp/golang-lru/v2", "golang.org/x/text", // by the engine
			"github.com/vishvananda/netlink", "github.com/vishvananda/netns", "github.com/mdlayher/netlink", "github.com/mdlayher/socket",
			"go4.org/netipx", "golang.org/x/net", "golang.org/x/sync", "golang.org/x/sys",
		}, "routes are the kernel's: nobody else is asked about them"},
		{"/internal/flowstore", []string{
			module + "/internal/flow", "modernc.org", "github.com/hashicorp/golang-lru/v2",
			"github.com/dustin/go-humanize", "github.com/google/uuid", "github.com/mattn/go-isatty", "github.com/ncruces/go-strftime",
			"github.com/remyoudompheng/bigfft", "golang.org/x/sys", // by modernc.org/sqlite
		}, "what happened can be read without the kernel side"},
		{"/internal/origin", []string{
			module + "/internal/flow", module + "/internal/cgroup", "github.com/hashicorp/golang-lru/v2", "golang.org/x/sys",
		}, "who a process is can be found without the kernel side"},
		{"/internal/explain", []string{
			module + "/internal/policy", module + "/internal/domain", module + "/internal/identity", module + "/internal/cgroup",
			"golang.org/x/sys", "golang.org/x/net", "golang.org/x/text",
		}, "a policy can be explained without the kernel side"},
		{"/internal/doctor", []string{
			module + "/internal/engine", module + "/internal/policy", module + "/internal/domain", module + "/internal/flow", module + "/internal/identity", module + "/internal/cgroup",
			"github.com/cilium/ebpf", "github.com/hashicorp/golang-lru/v2", // by the engine
			"github.com/google/nftables", "github.com/mdlayher/netlink", "github.com/mdlayher/socket", "github.com/moby/sys/mountinfo",
			"github.com/vishvananda/netlink", "github.com/vishvananda/netns", "golang.org/x/net", "golang.org/x/sync", "golang.org/x/sys", "golang.org/x/text",
		}, "the doctor looks at what is there, through the engine and the kernel's own lists"},
	} {
		self := module + tt.pkg
		for _, dep := range deps(t, self) {
			if dep != self && !allows(tt.allowed, dep) {
				t.Errorf("%s imports %s; %s", self, dep, tt.why)
			}
		}
	}
}

// TestImportsOnWindows: the library is as small there.
func TestImportsOnWindows(t *testing.T) {
	t.Setenv("GOOS", "windows")
	for _, dep := range deps(t, module) {
		if dep != module && !allows([]string{module + "/internal/datagram", module + "/internal/wfp", "golang.org/x/sys"}, dep) {
			t.Errorf("%s imports %s on Windows", module, dep)
		}
	}
}

// TestOnlyEngineTalksToTheKernel: one package knows how maps and programs are
// loaded.
func TestOnlyEngineTalksToTheKernel(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "./internal/...", "./cmd/...", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		pkg, imports, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.Contains(imports, "github.com/cilium/ebpf") && pkg != module+"/internal/engine" {
			t.Errorf("%s imports cilium/ebpf; only internal/engine may", pkg)
		}
	}
}

func deps(t *testing.T, pkg string) []string {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", pkg).Output()
	if err != nil {
		t.Fatalf("go list %s: %v", pkg, err)
	}
	return strings.Fields(string(out))
}

func allows(allowed []string, dep string) bool {
	for _, a := range allowed {
		// The module itself is a package too: it does not allow those below it.
		if dep == a || a != module && strings.HasPrefix(dep, a+"/") {
			return true
		}
	}
	return false
}
