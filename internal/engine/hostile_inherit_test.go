//go:build linux

package engine_test

import (
	"strings"
	"syscall"
	"testing"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/testenv"
)

// holdFlow has an application whose connection a proxy has accepted and not
// forwarded. The returned function ends it and returns its flow.
func holdFlow(t *testing.T, env *testenv.Env) func() uint64 {
	t.Helper()
	client := env.Start("app", "python3", "-c", `
import socket, sys
sys.path.insert(0, "testdata")
import wb
with socket.create_connection(("127.0.0.1", 8080)) as s:
    print("ready", flush=True)
    wb.report(flow=wb.origin(s)["flow"])
    s.recv(1)
`)
	return func() uint64 {
		t.Helper()
		var r struct{ Flow uint64 }
		decode(t, client.Stop(syscall.SIGTERM), &r)
		return r.Flow
	}
}

// TestNothingToInherit: provider b has accepted a connection and not yet
// forwarded it. Who dials its original destination and is no process of b's
// starts a flow of his own: nothing of the other comes to him.
func TestNothingToInherit(t *testing.T) {
	for _, tt := range []struct {
		who, cgroup string
		hops        int // that the next provider sees
	}{
		{"an application", "app", 1},
		{"a process of no provider", "elsewhere", 1},
		{"a process below no provider's cgroup", "app/b", 1},
		{"a process of a heavier provider", "a", 2},
		{"a process of a lighter provider", "c", 2},
	} {
		t.Run(tt.who, func(t *testing.T) {
			t.Parallel()
			env := testenv.New(t)
			e := open(t, env, engine.Options{})
			startOrigin(t, env)
			apply(t, e, chain(env, "a", "b", "c", "d"))
			startReporter(env, "b", "127.0.0.1", "hold")
			startReporter(env, "d", "127.0.0.1")
			held := holdFlow(t, env)
			var r report
			out := env.Run(tt.cgroup, "python3", "testdata/connects.py", "plain")
			decode(t, out, &r)
			checkReport(t, r, tt.hops)
			flow := held()
			if flow == 0 || r.Flow == flow || !strings.Contains(r.Comm, "python3") {
				t.Errorf("the held flow is %d; got %+v", flow, r)
			}
		})
	}
}
