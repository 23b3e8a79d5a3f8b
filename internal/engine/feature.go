//go:build linux

package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// FeatureError says what the running kernel lacks.
type FeatureError struct {
	Feature string
	Since   string // the Linux version that brought it
	Running string // the version of this kernel
}

func (e *FeatureError) Error() string {
	return fmt.Sprintf("this kernel (%s) has no %s; it needs Linux %s or later", e.Running, e.Feature, e.Since)
}

// required lists what the programs use beyond Linux 5.8, oldest first. The
// kernel is asked for each, because distributions port features back.
var required = []struct {
	name  string
	since string
	probe func() error
}{
	{"BTF type information (CONFIG_DEBUG_INFO_BTF)", "5.4", probeBTF},
	{"bpf_get_current_task_btf in cgroup programs", "5.11", helper(ebpf.CGroupSockopt, asm.FnGetCurrentTaskBtf)},
	{"bpf_get_netns_cookie in sockops programs", "5.15", helper(ebpf.SockOps, asm.FnGetNetnsCookie)},
	{"bpf_loop", "5.17", helper(ebpf.CGroupSockAddr, asm.FnLoop)},
	{"bpf_set_retval in cgroup programs", "5.18", helper(ebpf.CGroupSockopt, asm.FnSetRetval)},
	{"bpf_get_current_task_btf in connect hooks", "6.1", helper(ebpf.CGroupSockAddr, asm.FnGetCurrentTaskBtf)},
}

func probeBTF() error {
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return ebpf.ErrNotSupported
	}
	return nil
}

func helper(pt ebpf.ProgramType, fn asm.BuiltinFunc) func() error {
	return func() error { return features.HaveProgramHelper(pt, fn) }
}

// explainLoadError turns the kernel's refusal of our programs into what is
// missing. The programs themselves are the test, so a kernel is never refused
// because a probe misjudges it.
func explainLoadError(err error) error {
	// First, because without a privilege every feature looks as if it were missing.
	if missing := missingCapabilities(); len(missing) > 0 {
		return fmt.Errorf("load the kernel programs: %w: this process lacks %s", fs.ErrPermission, strings.Join(missing, ", "))
	}
	for _, f := range required {
		if errors.Is(f.probe(), ebpf.ErrNotSupported) {
			return fmt.Errorf("load the kernel programs: %w", &FeatureError{Feature: f.name, Since: f.since, Running: kernelRelease()})
		}
	}
	return fmt.Errorf("load the kernel programs: %w", err)
}

// missingCapabilities lists what it takes to load the programs and is not
// there. CAP_SYS_ADMIN stands for all of them.
func missingCapabilities() []string {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&header, &data[0]) != nil {
		return nil // not reached: the version is known since Linux 2.6.26
	}
	has := func(c int) bool { return data[c/32].Effective&(1<<(c%32)) != 0 }
	var missing []string
	for _, c := range []struct {
		name   string
		number int
	}{{"CAP_BPF", unix.CAP_BPF}, {"CAP_PERFMON", unix.CAP_PERFMON}, {"CAP_NET_ADMIN", unix.CAP_NET_ADMIN}} {
		if !has(c.number) && !has(unix.CAP_SYS_ADMIN) {
			missing = append(missing, c.name)
		}
	}
	return missing
}

func explainAttachError(hook, scope string, err error) error {
	err = fmt.Errorf("attach %s to %s: %w", hook, scope, err)
	switch {
	case errors.Is(err, unix.EBADF), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w (is it a directory of the cgroup v2 file system?)", err)
	case errors.Is(err, unix.EPERM) && os.Geteuid() == 0:
		return fmt.Errorf("%w (another program is attached to this cgroup, or one above or below it, for itself alone; bpftool cgroup tree shows it)", err)
	}
	return err
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
