package flowstore_test

import (
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/flow"
	"github.com/waybill-net/waybill/internal/flowstore"
)

func open(t testing.TB, opts flowstore.Options) *flowstore.Store {
	t.Helper()
	if opts.Path == "" {
		opts.Path = filepath.Join(t.TempDir(), "flows.db")
	}
	s, err := flowstore.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.Warning(); err != nil {
		t.Fatal(err)
	}
	return s
}

var (
	// Young enough not to be pruned, and without what the file does not keep.
	start    = time.Now().Truncate(time.Millisecond).Add(-time.Hour)
	origin   = netip.MustParseAddrPort("93.184.216.34:443")
	outside6 = netip.MustParseAddrPort("[2001:db8::1]:443")
	curl     = flow.Process{
		PID: 4711, UID: 1000, GID: 1000, Comm: "curl", Start: time.Hour, Device: 0x800001, Inode: 1<<63 + 77,
		CgroupID: 4242, NetNS: 1, Args: []string{"curl", "-s", "https://example.com/"},
	}
)

// chain is a flow through two proxies, with one that is down. Flows start a
// millisecond apart, by their id.
func chain(id flow.ID) []flow.Event {
	adblock := flow.Process{PID: 812, UID: 990, Comm: "mitmdump"}
	dlp := flow.Process{PID: 901, UID: 991, Comm: "dlpd"}
	events := []flow.Event{
		{
			Hop: 0, Kind: flow.Redirected, Provider: "adblock", Filter: "web", State: "not-redirected", Dst: origin, Process: curl,
			Skipped: []flow.Skip{{Provider: "parental", Reason: flow.SkipDown}, {Provider: "audit", Reason: flow.SkipShadow}},
		},
		{Hop: 0, Kind: flow.Accepted, Provider: "adblock"},
		{
			Hop: 1, Kind: flow.Redirected, Provider: "dlp", Filter: "everything", State: "redirected-by-other", Dst: origin, Process: adblock,
			Skipped: []flow.Skip{{Provider: "adblock", Reason: flow.SkipState}},
		},
		{Hop: 1, Kind: flow.Accepted, Provider: "dlp"},
		{Hop: 2, Kind: flow.Passed, Dst: origin, Process: dlp, Kinship: flow.Implied},
		{Hop: 2, Kind: flow.Closed, Duration: 96 * time.Microsecond, Sent: 1300, Received: 34600},
		{Hop: 1, Kind: flow.Closed, Provider: "dlp", Duration: 400 * time.Microsecond, Sent: 1200, Received: 34500},
		{Hop: 0, Kind: flow.Closed, Provider: "adblock", Duration: 700 * time.Microsecond, Sent: 1200, Received: 34500, Error: "connection reset by peer"},
	}
	for i := range events {
		events[i].Flow = id
		events[i].Time = start.Add(time.Duration(id)*time.Millisecond + time.Duration(100*i)*time.Microsecond)
	}
	return events
}
