//go:build linux

package engine_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/testenv"
)

// TestWithoutCapability: what is missing is named, not some feature that an
// unprivileged probe could not see.
func TestWithoutCapability(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	self, err := os.Executable() // /proc/self/exe is setpriv by then
	if err != nil {
		t.Fatal(err)
	}
	for bounding, want := range map[string]string{
		"-all,+net_admin":               "this process lacks CAP_BPF, CAP_PERFMON",
		"-all,+bpf":                     "this process lacks CAP_PERFMON, CAP_NET_ADMIN",
		"-all,+perfmon,+net_admin":      "this process lacks CAP_BPF",
		"-all,+bpf,+net_admin":          "this process lacks CAP_PERFMON",
		"-all,+bpf,+perfmon":            "this process lacks CAP_NET_ADMIN",
		"-all,+bpf,+perfmon,+net_admin": "opened",
	} {
		cmd := roleCommand(env, "app", "open", env.Scope)
		cmd.Args = []string{"setpriv", "--bounding-set=" + bounding, "--", self, env.Scope}
		cmd.Path = "/usr/bin/setpriv"
		out, _ := cmd.Output()
		if !strings.Contains(string(out), want) {
			t.Errorf("%s: %q, want %q", bounding, out, want)
		}
	}
}

// playOpen opens an engine and says how that went.
func playOpen(scope string) error {
	e, err := engine.Open(engine.Options{Scope: scope})
	if err != nil {
		fmt.Println(err)
		return nil
	}
	fmt.Println("opened")
	return e.Close()
}
