//go:build linux

package interop

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/flow"
)

// cell is one payload over one family through one chain.
type cell struct {
	chain  []string
	load   payload
	family int // 4 or 6
	size   int64

	host   netip.Addr
	path   []string // the proxies of the chain that take it
	report clientReport
	legs   []flow.Event
	oneID  bool // the flow had one id all the way
	failed bool
}

const (
	originSide = "origin"
	settleTime = 3 * time.Second // for events of what has happened to be read
)

// run sends the payload and checks everything about it.
func (c *cell) run(t *testing.T, s *stage) {
	t.Helper()
	c.host = s.destination(c.family)
	for _, name := range c.chain {
		if s.proxies[name].takes(c.load, c.host) {
			c.path = append(c.path, name)
		}
	}
	if c.hangs(s) != "" {
		return
	}
	defer func() { c.failed = t.Failed() }()
	var err error
	if c.report, err = s.runClient(c.load, c.host, c.size); err != nil {
		t.Fatal(err)
	}
	if c.report.Err != "" {
		t.Errorf("the client: %s", c.report.Err)
	}
	t.Logf("the client took %v", c.report.Took.Round(time.Millisecond))
	c.checkArrival(t, s)
	c.checkCertificate(t, s)
	c.waitForLegs(s)
	c.checkLegs(t, s)
	if t.Failed() {
		t.Logf("connects to %s:\n%s", c.host, c.describe(s))
	}
}

// checkArrival: what the client sent came to the origin once.
func (c *cell) checkArrival(t *testing.T, s *stage) {
	t.Helper()
	if c.hangs(s) != "" {
		return
	}
	want := arrivals{Connections: c.report.Connections, Requests: c.load.requests()}
	if got := s.origin.at(c.host); got != want || got.Connections != 1 {
		t.Errorf("the origin saw %+v, want %+v", got, want)
	}
}

// checkCertificate: TLS is between the client and the origin, but for a proxy
// that opens it.
func (c *cell) checkCertificate(t *testing.T, s *stage) {
	t.Helper()
	if c.load != payloadTLS {
		return
	}
	want := authorityName
	if c.opened(s) {
		want = "mitmproxy"
	}
	if c.report.Issuer != want {
		t.Errorf("the client was shown a certificate of %q, want %q", c.report.Issuer, want)
	}
}

// hangs returns the first proxy in which the payload would hang, if any.
func (c *cell) hangs(s *stage) string {
	for _, name := range c.path {
		if c.load == payloadHalfClose && s.proxies[name].hangs {
			return name
		}
	}
	return ""
}

func (c *cell) opened(s *stage) bool {
	return c.load == payloadTLS && slices.ContainsFunc(c.path, func(name string) bool { return s.proxies[name].opens })
}

// wantLegs are the connections of the flow: from the application to the first
// proxy, from each proxy to the next, from the last to the origin. If none
// takes it there is nothing to see.
func (c *cell) wantLegs(s *stage) []string {
	var legs []string
	from := appCgroup
	for _, to := range append(slices.Clone(c.path), originSide) {
		if p := s.proxies[from]; p != nil && p.remote {
			break
		}
		legs = append(legs, from+" → "+to)
		from = to
	}
	return legs
}

func (c *cell) waitForLegs(s *stage) {
	for deadline := time.Now().Add(settleTime); ; time.Sleep(2 * time.Millisecond) {
		c.legs = s.journal.connects(c.host)
		settled := len(c.legs) >= len(c.wantLegs(s)) || len(c.path) == 0
		for _, leg := range c.legs {
			settled = settled && (leg.Kind != flow.Redirected || s.journal.has(flow.Accepted, leg))
		}
		if settled || time.Now().After(deadline) {
			return
		}
	}
}

// checkLegs: the flow went through each proxy once, in the order of their
// weights, and each time as the kernel says it, not as the proxies do.
func (c *cell) checkLegs(t *testing.T, s *stage) {
	t.Helper()
	if len(c.path) == 0 {
		for _, leg := range c.legs {
			if leg.Kind != flow.Passed {
				t.Errorf("no proxy takes it, and yet: %s", s.leg(leg))
			}
		}
		return
	}
	c.oneID = true
	var got []string
	for i, leg := range c.legs {
		got = append(got, s.leg(leg))
		c.oneID = c.oneID && leg.Flow == c.legs[0].Flow && leg.Hop == i
		if leg.Kind == flow.Redirected && !s.journal.has(flow.Accepted, leg) {
			t.Errorf("%s: nothing was accepted with its records", s.leg(leg))
		}
	}
	if !c.oneID {
		t.Error("the flow did not keep its id")
	}
	if want := c.wantLegs(s); !slices.Equal(got, want) {
		t.Errorf("the flow went\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// leg says from whom to whom a connection went.
func (s *stage) leg(e flow.Event) string {
	from, known := s.cgroups[e.Process.CgroupID]
	if !known {
		from = fmt.Sprintf("%s in cgroup %d", e.Process.Comm, e.Process.CgroupID)
	}
	switch e.Kind {
	case flow.Redirected:
		return from + " → " + e.Provider
	case flow.Passed:
		return from + " → " + originSide
	}
	return fmt.Sprintf("%s %s by %s", from, e.Kind, e.Provider)
}

// checkLate: nothing has come after the cell was looked at, to any proxy or to
// the origin.
func (c *cell) checkLate(t *testing.T, s *stage) {
	t.Helper()
	if late := s.journal.connects(c.host); len(late) != len(c.legs) {
		c.legs = late
		t.Errorf("%s by IPv%d through %s: later there were\n%s", c.load, c.family, strings.Join(c.chain, ", "), c.describe(s))
	}
	c.checkArrival(t, s)
}

func (c *cell) describe(s *stage) string {
	var out strings.Builder
	for _, leg := range c.legs {
		fmt.Fprintf(&out, "%s, flow %s hop %d, kinship %q, skipped %v\n",
			s.leg(leg), leg.Flow, leg.Hop, leg.Kinship, leg.Skipped)
	}
	return out.String()
}
