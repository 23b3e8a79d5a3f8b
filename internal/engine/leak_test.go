//go:build linux

package engine

import (
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/testenv"
)

// TestCloseLeavesNoTrace looks for every program and map of an engine after
// its end.
func TestCloseLeavesNoTrace(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e, err := Open(Options{Scope: env.Scope})
	if err != nil {
		t.Fatal(err)
	}
	programs, maps := ids(t, e)
	if len(programs) != len(hookNames)+2 || len(maps) < 10 {
		t.Errorf("%d programs, %d maps", len(programs), len(maps))
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	scope, err := os.Open(env.Scope)
	if err != nil {
		t.Fatal(err)
	}
	defer scope.Close()
	for _, at := range []ebpf.AttachType{
		ebpf.AttachCGroupSockOps, ebpf.AttachCGroupGetsockopt, ebpf.AttachCGroupSetsockopt,
		ebpf.AttachCgroupInet4GetPeername, ebpf.AttachCgroupInet6GetPeername,
		ebpf.AttachCGroupInet4Connect, ebpf.AttachCGroupInet6Connect,
	} {
		attached, err := link.QueryPrograms(link.QueryOptions{Target: int(scope.Fd()), Attach: at})
		if err != nil || len(attached.Programs) != 0 {
			t.Errorf("%v: %v, %v", at, attached, err)
		}
	}
	// The kernel frees in its own time, after a grace period.
	deadline := time.Now().Add(10 * time.Second)
	for _, id := range programs {
		for exists(ebpf.NewProgramFromID(id)) {
			if time.Now().After(deadline) {
				t.Fatalf("program %d is still there", id)
			}
			time.Sleep(time.Millisecond)
		}
	}
	for _, id := range maps {
		for exists(ebpf.NewMapFromID(id)) {
			if time.Now().After(deadline) {
				t.Fatalf("map %d is still there", id)
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// TestBooksAreEmpty looks into the maps of the hand-over after connections of
// all kinds.
func TestBooksAreEmpty(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e, err := Open(Options{Scope: env.Scope})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	err = e.Apply(policy.Policy{
		Providers: []policy.Provider{{Name: "a", Listen: netip.MustParseAddrPort("127.0.0.1:7001"), Cgroup: env.Cgroup("a")}},
		Filters:   []policy.Filter{{Provider: "a", Context: []byte("context"), Ports: []policy.PortRange{policy.Port(8080)}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	env.Start("a", "python3", "testdata/reporter.py", "127.0.0.1", "7001")
	// Some arrive, and some are given up on their way.
	env.Run("app", "python3", "-c", `
import socket
for _ in range(20):
    socket.create_connection(("192.0.2.1", 8080)).close()
`)
	env.DropPacketsTo(7001)
	env.Run("app", "python3", "-c", `
import socket
socks = []
for _ in range(20):
    s = socket.socket()
    s.setblocking(False)
    s.connect_ex(("192.0.2.1", 8080))
    socks.append(s)
`)
	var used uint64
	if err := e.objects.InflightUsed.Get(&used); err != nil || used != 0 {
		t.Errorf("%d counted in flight, %v", used, err)
	}
	for name, m := range map[string]*ebpf.Map{
		"inflight": e.objects.Inflight, "inflight_contexts": e.objects.InflightContexts, "candidates": e.objects.Candidates,
		"peers": e.objects.Peers, "destinations": e.objects.Destinations,
	} {
		if key, err := m.NextKeyBytes(nil); key != nil || err != nil {
			t.Errorf("%s is not empty: %x, %v", name, key, err)
		}
	}
	c, err := e.Counters()
	if err != nil || c["arrived"] == 0 || c["abandoned"] == 0 || c["departed"] != c["arrived"]+c["abandoned"] {
		t.Errorf("counters %v, %v", c, err)
	}
}

func ids(t *testing.T, e *Engine) (programs []ebpf.ProgramID, maps []ebpf.MapID) {
	t.Helper()
	o := &e.objects
	for _, p := range []*ebpf.Program{
		o.WbSendmsg4, o.WbSendmsg6, o.WbRecvmsg4, o.WbRecvmsg6, o.WbBind4, o.WbBind6, o.WbSockRelease,
		o.WbConnect4, o.WbConnect6, o.WbGetpeername4, o.WbGetpeername6, o.WbGetsockname4, o.WbGetsockname6,
		o.WbGetsockopt, o.WbListFlows, o.WbListListeners, o.WbSetsockopt, o.WbSockops,
	} {
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		used, _ := info.MapIDs()
		programs, maps = append(programs, id), append(maps, used...)
	}
	return programs, maps
}

func exists[T interface{ Close() error }](object T, err error) bool {
	if err != nil {
		return false
	}
	object.Close()
	return true
}
