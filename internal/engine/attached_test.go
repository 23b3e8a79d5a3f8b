//go:build linux

package engine_test

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/testenv"
)

// TestAttachedTo: every program on a cgroup is listed, in the order in which
// they run.
func TestAttachedTo(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	if attached, err := engine.AttachedTo(env.Scope); err != nil || len(attached) != 0 {
		t.Fatalf("on a new cgroup: %+v, %v", attached, err)
	}
	open(t, env, engine.Options{})
	attachNamed(t, env.Scope, "second", ebpf.AttachCGroupInet4Connect)
	attachNamed(t, env.Scope, "for_udp", ebpf.AttachCGroupUDP6Recvmsg)
	attached, err := engine.AttachedTo(env.Scope)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, a := range attached {
		names = append(names, a.Hook+" "+a.Name)
		if a.Cgroup != env.Scope || a.Mode != engine.Shared || a.ID == 0 || a.UID != 0 || a.Loaded <= 0 {
			t.Errorf("%+v", a)
		}
	}
	want := []string{
		"sockops wb_sockops", "getsockopt wb_getsockopt", "setsockopt wb_setsockopt", "getpeername4 wb_getpeername4",
		"getpeername6 wb_getpeername6", "getsockname4 wb_getsockname4", "getsockname6 wb_getsockname6", "bind4 wb_bind4",
		"bind6 wb_bind6", "sock_release wb_sock_release", "recvmsg4 wb_recvmsg4", "recvmsg6 wb_recvmsg6", "recvmsg6 for_udp",
		"sendmsg4 wb_sendmsg4", "sendmsg6 wb_sendmsg6", "connect4 wb_connect4", "connect4 second", "connect6 wb_connect6",
	}
	if !slices.Equal(names, want) {
		t.Errorf("got  %s\nwant %s", strings.Join(names, ", "), strings.Join(want, ", "))
	}
}

func TestAttachedToNothing(t *testing.T) {
	env := testenv.New(t)
	if _, err := engine.AttachedTo(env.Scope + "/absent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a cgroup that does not exist: %v", err)
	}
	if attached, err := engine.AttachedTo(t.TempDir()); err == nil {
		t.Errorf("a directory that is no cgroup: %+v", attached)
	}
}

// TestFeatures: the kernel that runs the tests takes the programs, so it has
// all features. That one can not be asked is no fault: a kernel can refuse a
// probe for a reason of its own.
func TestFeatures(t *testing.T) {
	for _, f := range engine.Features() {
		var missing *engine.FeatureError
		if errors.As(f.Err, &missing) || f.Name == "" || f.Since == "" {
			t.Errorf("%+v", f)
		}
	}
	if err := engine.TryLoad(); err != nil {
		t.Error(err)
	}
}

func attachNamed(t *testing.T, dir, name string, hook ebpf.AttachType) {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: name, Type: ebpf.CGroupSockAddr, AttachType: hook, License: "MIT",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	l, err := link.AttachCgroup(link.CgroupOptions{Path: dir, Attach: hook, Program: p})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}
