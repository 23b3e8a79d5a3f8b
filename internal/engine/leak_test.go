package engine

import (
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

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
	if len(programs) != 8 || len(maps) < 10 {
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

func ids(t *testing.T, e *Engine) (programs []ebpf.ProgramID, maps []ebpf.MapID) {
	t.Helper()
	o := &e.objects
	for _, p := range []*ebpf.Program{
		o.WbConnect4, o.WbConnect6, o.WbGetpeername4, o.WbGetpeername6,
		o.WbGetsockopt, o.WbListFlows, o.WbSetsockopt, o.WbSockops,
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
