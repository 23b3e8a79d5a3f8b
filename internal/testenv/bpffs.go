//go:build linux

package testenv

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// StateDir returns where an engine can keep its state: a path, which need not
// exist yet, in a BPF file system of the test's own. That is mounted nowhere:
// it is reached through a descriptor, and ends with the last process that has
// it, so a test that is killed leaves no mount. The path holds for this
// process; see [Env.StateFile].
func (e *Env) StateDir() string {
	return filepath.Join(fmt.Sprintf("/proc/self/fd/%d", e.StateFile().Fd()), "waybill")
}

// StateFile is the root of that file system, to be passed to a child.
func (e *Env) StateFile() *os.File {
	e.t.Helper()
	if e.bpffs == nil {
		fd, err := mountBPFFS()
		if err != nil {
			e.t.Fatalf("mount a BPF file system: %v", err)
		}
		e.bpffs = os.NewFile(uintptr(fd), "bpffs")
		e.t.Cleanup(func() { e.bpffs.Close() })
	}
	return e.bpffs
}

func mountBPFFS() (int, error) {
	fs, err := unix.Fsopen("bpf", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return 0, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
}
