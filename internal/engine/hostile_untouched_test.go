//go:build linux

package engine_test

import (
	"strings"
	"testing"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/testenv"
)

// TestUntouched: what is not TCP over IP does inside the scope what it does
// outside, under a policy that wants everything. All of it is a way around
// the proxies, and docs/security.md says so.
func TestUntouched(t *testing.T) {
	t.Parallel()
	env, outside := testenv.New(t), testenv.New(t)
	outside.ShareNetNS(env)
	e := open(t, env, engine.Options{})
	p := chain(env, "a")
	p.Filters[0].Ports = nil
	p.Providers[0].OnDown = policy.Block
	apply(t, e, p)
	want := outside.Run("x", "python3", "testdata/untouched.py")
	got := env.Run("app", "python3", "testdata/untouched.py")
	if got != want {
		t.Errorf("inside the scope:\n%s\noutside:\n%s", got, want)
	}
	for _, works := range []string{
		"UDP (b'unconnected', b'back', ('192.0.2.1', 8080), ('192.0.2.1', 8080), b'connected')",
		"UDP6 (b'unconnected', b'back', ('2001:db8::1', 8080), ('2001:db8::1', 8080), b'connected')",
		"raw (('192.0.2.1', 8080), 40)", "unix (b'bytes', b'\\x00waybill-untouched')", "netlink True",
	} {
		if !strings.Contains(got, works+"\n") {
			t.Errorf("no %q in\n%s", works, got)
		}
	}
	if c := counters(t, e); len(c) != 0 {
		t.Errorf("counters: %v", c)
	}
}
