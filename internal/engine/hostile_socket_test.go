//go:build linux

package engine_test

import (
	"path/filepath"
	"testing"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/testenv"
)

// handed is what testdata/handed.py prints.
type handed struct {
	State, Hops         int
	Own                 bool // the process that connected is the origin of the flow
	Answer              string
	Query, Set, Context string
}

// TestHandedSockets: sockets that are inherited or passed, in both directions,
// and processes that move to another cgroup before or after socket(). Two
// rules decide all of it. Which hooks run, and whose listener a socket is, goes
// by the cgroup that created the socket. Who connects, and who has the right
// to SET, goes by the cgroup in which the process runs at that moment.
//
// Provider a's proxy is the process that the test starts; b's reports.
func TestHandedSockets(t *testing.T) {
	var (
		// Seen by b: the implied hop of a, and b's own.
		asProxy = handed{State: bySelf, Hops: 2, Own: true}
		// Seen by b, because a does not listen.
		asApp = handed{State: bySelf, Hops: 1, Own: true}
	)
	for scenario, want := range map[string]handed{
		"app_gives_socket_to_proxy":        asProxy,
		"proxy_gives_socket_to_app":        asApp,
		"app_inherits_socket_of_proxy":     asApp,
		"app_moves_to_proxy_before_socket": asProxy, // it takes the right to write to a's cgroup.procs
		"app_moves_to_proxy_after_socket":  asProxy,
		"proxy_moves_to_app_after_socket":  asApp,
		"app_moves_outside_after_socket":   asApp,

		// Records stay with the socket on which they were set: whoever gives it away gives them away.
		"proxy_gives_socket_with_records_to_app": {State: bySelf, Hops: 2},
		// Whoever holds an accepted socket may read what it carries, and no more.
		"proxy_gives_accepted_socket_to_app": {Query: "ok", Set: "EACCES", Context: "ENODATA"},
		// Whoever gives a listener away gives its connections away.
		"proxy_gives_listener_to_stranger":     {State: bySelf, Hops: 1},
		"proxy_listens_then_moves_away":        {State: bySelf, Hops: 1},
		"stranger_listens_then_moves_to_proxy": asApp,

		// Limits: such a socket is not the scope's. There is none outside a scope that is the root.
		"outsider_moves_in_after_socket":   {Answer: answer},
		"app_is_given_socket_from_outside": {Answer: answer},
	} {
		t.Run(scenario, func(t *testing.T) {
			t.Parallel()
			env := testenv.New(t)
			outside := testenv.New(t)
			e := open(t, env, engine.Options{})
			startOrigin(t, env)
			apply(t, e, chain(env, "a", "b"))
			startReporter(env, "b", "127.0.0.1")
			var got handed
			decode(t, env.Run("a", "python3", "testdata/handed.py", scenario,
				env.Cgroup("app"), env.Cgroup("other"), filepath.Clean(outside.Cgroup("x"))), &got)
			if got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			c := counters(t, e)
			if stranger := scenario == "stranger_listens_then_moves_to_proxy"; stranger != (c["down_foreign_listener"] == 1) {
				t.Errorf("counters: %v", c)
			}
		})
	}
}
