//go:build linux

package main

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// ownProgram is that of all workers.
const ownProgram = "/proc/self/exe"

// makePrograms makes n files that filters can name as programs. Their file
// system is mounted nowhere and goes with the descriptor, so that a bench that
// is killed leaves none behind.
func makePrograms(n int) (dir *os.File, paths []string, err error) {
	dir, err = mountNowhere()
	if err != nil {
		return nil, nil, fmt.Errorf("mount a tmpfs: %w", err)
	}
	for i := range n {
		path := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), strconv.Itoa(i))
		if err := os.WriteFile(path, nil, 0o755); err != nil {
			dir.Close()
			return nil, nil, fmt.Errorf("make program: %w", err)
		}
		paths = append(paths, path)
	}
	return dir, paths, nil
}

func mountNowhere() (*os.File, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, err
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(mount), "tmpfs"), nil
}
