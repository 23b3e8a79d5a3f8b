//go:build linux

package doctor_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/waybill-net/waybill/internal/doctor"
	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/testenv"
)

func cancelled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// place is where somebody else's program is attached, without a link.
type place struct {
	at    string // the scope is "above/scope"
	flags uint32
}

const alone = 0 // neither BPF_F_ALLOW_OVERRIDE nor BPF_F_ALLOW_MULTI

// TestForeignPrograms: a program is a problem if and only if waybill can not
// attach because of it.
func TestForeignPrograms(t *testing.T) {
	for _, tt := range []struct {
		name   string
		places []place // in the order of attaching
		want   []doctor.Level
	}{
		{"alone on the scope", []place{{"above/scope", alone}}, []doctor.Level{doctor.Problem}},
		{"overridable on the scope", []place{{"above/scope", unix.BPF_F_ALLOW_OVERRIDE}}, []doctor.Level{doctor.Problem}},
		{"shared on the scope", []place{{"above/scope", unix.BPF_F_ALLOW_MULTI}}, []doctor.Level{doctor.Warning}},
		{"alone above", []place{{"above", alone}}, []doctor.Level{doctor.Problem}},
		{"overridable above", []place{{"above", unix.BPF_F_ALLOW_OVERRIDE}}, []doctor.Level{doctor.Warning}},
		{"shared above", []place{{"above", unix.BPF_F_ALLOW_MULTI}}, []doctor.Level{doctor.Warning}},
		{"alone below", []place{{"above/scope/below", alone}}, []doctor.Level{doctor.Warning}},
		{"shared below", []place{{"above/scope/below", unix.BPF_F_ALLOW_MULTI}}, []doctor.Level{doctor.Warning}},
		{
			"alone behind shared", // the kernel asks only the nearest
			[]place{{"above", unix.BPF_F_ALLOW_MULTI}, {".", alone}},
			[]doctor.Level{doctor.Warning, doctor.Warning},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			checkForeign(t, tt.places, tt.want)
		})
	}
}

func checkForeign(t *testing.T, places []place, want []doctor.Level) {
	env := testenv.New(t)
	scope := env.Cgroup("above/scope")
	for _, p := range places {
		attach(t, env.Cgroup(p.at), p.flags, allow)
	}
	findings := examine(t, env, doctor.Options{Scope: scope}, "programs")
	holder := fmt.Sprintf("held by %s[%d]", comm(t), os.Getpid())
	for i, p := range places {
		f := find(t, findings, "connect4 of "+env.Cgroup(p.at)+":", "program foreign (id ")
		if f.Level != want[i] || !strings.Contains(f.Meaning, "Loaded by root at 2") || !strings.Contains(f.Meaning, holder) {
			t.Errorf("%+v, want %s and %q", f, want[i], holder)
		}
	}
	problems := doctor.Problems(findings)
	e, err := engine.Open(engine.Options{Scope: scope})
	if (err != nil) != (problems > 0) {
		t.Errorf("doctor found %d problems, and attaching answered: %v", problems, err)
	}
	if err == nil {
		e.Close()
	}
}

// TestOverridden: what doctor says of an overridable program above the scope
// is what the kernel does.
func TestOverridden(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	attach(t, env.Cgroup("above"), unix.BPF_F_ALLOW_OVERRIDE, refuse)
	scope := env.Cgroup("above/scope")
	f := find(t, examine(t, env, doctor.Options{Scope: scope}, "programs"), "connect4 of")
	if !strings.Contains(f.Meaning, "no longer runs") {
		t.Errorf("%+v", f)
	}
	env.Listen("127.0.0.1:8080")
	connect := []string{"python3", "-c", "import socket; socket.create_connection(('127.0.0.1', 8080))"}
	if out, err := env.TryRun("above/scope", connect[0], connect[1:]...); err == nil {
		t.Errorf("before waybill, the program let a connection through: %s", out)
	}
	e, err := engine.Open(engine.Options{Scope: scope})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	env.Run("above/scope", connect[0], connect[1:]...)
}

// TestWaybillItself: waybill's own programs are in nobody's way, unless there
// are two of them one below the other.
func TestWaybillItself(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	for i, scope := range []string{env.Scope, env.Cgroup("below")} {
		e, err := engine.Open(engine.Options{Scope: scope})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		findings := examine(t, env, doctor.Options{Scope: env.Scope}, "programs")
		const hooks = 16 // of an engine
		if want := hooks*(i+1) + i; len(findings) != want {
			t.Errorf("%d findings, want %d: %+v", len(findings), want, findings)
		}
		f := find(t, findings, "connect6 of "+scope+":", "program wb_connect6", "waybill's own")
		if f.Level != doctor.Info || !strings.Contains(f.Meaning, comm(t)) {
			t.Errorf("%+v", f)
		}
	}
	if f := find(t, examine(t, env, doctor.Options{Scope: env.Scope}, "programs"), "waybill runs twice"); f.Level != doctor.Warning {
		t.Errorf("%+v", f)
	}
}

func TestNobodyElse(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	findings := examine(t, env, doctor.Options{Scope: env.Scope}, "programs")
	if len(findings) != 1 || findings[0].Level != doctor.OK {
		t.Errorf("%+v", findings)
	}
}

// TestProduct: Cilium is known by the name of its program, which the kernel
// cuts off.
func TestProduct(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	p := load(t, "cil_sock4_connect", allow)
	l, err := link.AttachCgroup(link.CgroupOptions{Path: env.Scope, Attach: ebpf.AttachCGroupInet4Connect, Program: p})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	find(t, examine(t, env, doctor.Options{Scope: env.Scope}, "programs"), "cil_sock4_conne", "of Cilium")
	f := find(t, examine(t, env, doctor.Options{Scope: env.Scope}, "products"), "Cilium is here", "cil_sock4_conne")
	if f.Level != doctor.Info || f.Remedy == "" {
		t.Errorf("%+v", f)
	}
}

// What a program answers to connect().
const refuse, allow = 0, 1

// attach attaches a program that answers verdict to every connect().
func attach(t *testing.T, dir string, flags uint32, verdict int32) {
	t.Helper()
	cgroup, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cgroup.Close() })
	err = link.RawAttachProgram(link.RawAttachProgramOptions{
		Target: int(cgroup.Fd()), Program: load(t, "foreign", verdict), Attach: ebpf.AttachCGroupInet4Connect, Flags: flags,
	})
	if err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, name string, verdict int32) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: name, Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect, License: "MIT",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func comm(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(exe)
	return name[:min(len(name), 15)]
}
