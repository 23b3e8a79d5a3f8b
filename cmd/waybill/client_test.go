//go:build linux

package main

import (
	"errors"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/waybill-net/waybill/internal/control/controltest"
	"github.com/waybill-net/waybill/internal/flow"
)

// TestDaemonScripts runs commands against a daemon with known answers, at
// $SOCKET.
func TestDaemonScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/daemon",
		Setup: func(env *testscript.Env) error {
			b := controltest.New(t)
			socket, _ := controltest.Serve(t, b)
			b.FollowError = errors.New("enough")
			env.Vars = append(env.Vars, "SOCKET="+socket, "TZ=UTC")
			done := make(chan struct{})
			env.Defer(func() { close(done) })
			go change(b, done)
			return nil
		},
	})
}

// change lets a follower see a flow begin, go on and end, and then an error.
func change(b *controltest.Backend, done <-chan struct{}) {
	f := controltest.Changed(7, controltest.Alice)
	open := f
	f.Hops = append([]flow.Hop(nil), f.Hops...)
	f.Apply(controltest.Arrive(7))
	accepted := f
	f.Hops = append([]flow.Hop(nil), f.Hops...)
	f.Apply(flow.Event{
		Kind: flow.Closed, Time: f.Start.Add(time.Second), Flow: 7, Provider: "adblock", Duration: time.Second, Sent: 100, Received: 900,
	})
	for {
		for _, f := range []flow.Flow{open, accepted, f, {}} {
			select {
			case b.Changes <- f:
			case <-done:
				return
			}
		}
	}
}
