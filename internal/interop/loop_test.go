//go:build linux

package interop

import (
	"fmt"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/policy"
)

const (
	// loopEnough redirects of one connection are called a loop. It would be
	// endless, if a proxy's descriptors were.
	loopEnough = 50
	loopWait   = 20 * time.Second
)

// loop sends one request through the chain without records: each provider
// then exempts only its own proxy. It returns how many redirects that one
// connection came to before the policy was taken away, which ends the loop:
// the newest proxy then reaches the origin.
func (s *stage) loop(t *testing.T, chain []string) string {
	t.Helper()
	p := s.policy(chain)
	p.TrackingOff = true
	s.apply(t, p)
	defer s.apply(t, policy.Policy{})
	before := s.redirected(t)
	start := time.Now()
	ended := make(chan error, 1)
	go func() {
		_, err := s.runClient(payloadHTTP, s.destination(4), payloadHTTP.size())
		ended <- err
	}()
	n, running := uint64(0), true
	for running && n < loopEnough && time.Since(start) < loopWait {
		select {
		case err := <-ended:
			running = false
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Millisecond):
		}
		n = s.redirected(t) - before
	}
	took := time.Since(start)
	s.apply(t, policy.Policy{})
	if n < loopEnough {
		t.Errorf("without records one connection through %v was redirected %d times: no loop", chain, n)
		return fmt.Sprintf("NO LOOP (%d redirects)", n)
	}
	if running {
		<-ended // it has an answer, or an error of a proxy that had enough
	}
	return fmt.Sprintf("loops (%d redirects in %d ms)", n, took.Milliseconds())
}

// redirected counts the redirects so far.
func (s *stage) redirected(t *testing.T) uint64 {
	t.Helper()
	counters, err := s.engine.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return counters["redirected"]
}
