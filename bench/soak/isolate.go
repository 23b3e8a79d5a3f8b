//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// workDir is where everything is that a run writes: a tmpfs that only the run
// sees, and that ends with its last process.
const workDir = "/mnt"

var (
	waybillPath = filepath.Join(workDir, "waybill")
	bpffsDir    = filepath.Join(workDir, "bpf")
	stateDir    = filepath.Join(bpffsDir, "waybill")
	runDir      = filepath.Join(workDir, "run")
	dataDir     = filepath.Join(workDir, "data")
)

// isolatedVar says that this program has been executed again in its own mount
// namespace.
const isolatedVar = "WAYBILL_SOAK_ISOLATED"

// isolate gives this process a mount namespace with the file systems of the
// run in it. A mount namespace is a property of the thread, so the program is
// executed anew: then it is that of all threads.
func isolate(waybill string) error {
	if os.Getenv(isolatedVar) != "" {
		return os.Unsetenv(isolatedVar)
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := mountAll(); err != nil {
		return err
	}
	if err := provideWaybill(waybill); err != nil {
		return err
	}
	env := append(os.Environ(), isolatedVar+"=1")
	return fmt.Errorf("execute again: %w", unix.Exec("/proc/self/exe", os.Args, env))
}

func mountAll() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("soak", workDir, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount a tmpfs at %s: %w", workDir, err)
	}
	if err := os.Mkdir(bpffsDir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("soak", bpffsDir, "bpf", 0, ""); err != nil {
		return fmt.Errorf("mount a BPF file system at %s: %w", bpffsDir, err)
	}
	return nil
}

// provideWaybill builds the command or copies one that is there.
func provideWaybill(path string) error {
	cmd := exec.Command("go", "build", "-o", waybillPath, "github.com/waybill-net/waybill/cmd/waybill")
	if path != "" {
		cmd = exec.Command("cp", path, waybillPath)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}
