//go:build linux

package doctor_test

import (
	"context"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/waybill-net/waybill/internal/cgroup"
	"github.com/waybill-net/waybill/internal/doctor"
	"github.com/waybill-net/waybill/internal/testenv"
)

// TestMounts has mounts of its own: a bpf file system with a pinned program,
// and cgroup v2 read-only.
func TestMounts(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	l, err := link.AttachCgroup(link.CgroupOptions{
		Path: env.Scope, Attach: ebpf.AttachCGroupInet4Connect, Program: load(t, "foreign", allow),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	root := cgroupRoot(t)
	var findings []doctor.Finding
	err = withMounts(func() (err error) {
		if err := unix.Mount("bpf", "/sys/fs/bpf", "bpf", 0, ""); err != nil {
			return os.NewSyscallError("mount bpf", err)
		}
		if err := l.Pin("/sys/fs/bpf/foreign"); err != nil {
			return err
		}
		if err := unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			return os.NewSyscallError("remount", err)
		}
		findings, err = doctor.Examine(context.Background(), doctor.Options{Scope: env.Scope})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if f := find(t, findings, "the bpf file system at /sys/fs/bpf"); f.Level != doctor.OK {
		t.Errorf("%+v", f)
	}
	if f := find(t, findings, root+" is mounted read-only"); f.Level != doctor.Warning {
		t.Errorf("%+v", f)
	}
	if f := find(t, findings, "connect4 of "+env.Scope); !strings.Contains(f.Meaning, "pinned at /sys/fs/bpf/foreign.") {
		t.Errorf("%+v", f)
	}
}

// TestNoCgroup2: without the hierarchy that is the problem, and the other
// checks go on.
func TestNoCgroup2(t *testing.T) {
	t.Parallel()
	root := cgroupRoot(t)
	var findings []doctor.Finding
	err := withMounts(func() (err error) {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			return os.NewSyscallError("umount", err)
		}
		findings, err = doctor.Examine(context.Background(), doctor.Options{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if f := find(t, findings, "cgroup v2 is not mounted"); f.Level != doctor.Problem || f.Remedy == "" {
		t.Errorf("%+v", f)
	}
	if !slices.ContainsFunc(findings, func(f doctor.Finding) bool { return f.Check == "host" }) {
		t.Errorf("the examination ended early: %+v", findings)
	}
}

func cgroupRoot(t *testing.T) string {
	t.Helper()
	root, err := cgroup.Root()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// withMounts runs f with a copy of the mounts that no other thread sees and
// that ends with f: the goroutine never unlocks its thread.
func withMounts(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			done <- os.NewSyscallError("unshare", err)
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			done <- os.NewSyscallError("mount", err)
			return
		}
		done <- f()
	}()
	return <-done
}
