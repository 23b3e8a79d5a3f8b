//go:build linux

package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Empty kills the processes in the cgroup at dir and below it, and waits
// until they are gone: a process that is being torn down still holds its
// port. Unlike Remove it leaves a cgroup that can be used again.
//
// It kills one by one. On Linux 6.18, and probably since the 6.14 that counts
// the kills of a cgroup, every process that is cloned into a cgroup
// (CLONE_INTO_CGROUP) after a write to its cgroup.kill is killed at birth.
func Empty(dir string) error {
	deadline := time.Now().Add(removeTimeout)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		pids, err := Processes(dir)
		if err != nil || len(pids) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("kill the processes of cgroup %s: %d are left after %v", dir, len(pids), removeTimeout)
		}
		for _, pid := range pids {
			kill(dir, pid)
		}
		time.Sleep(wait) // a zombie stays until it is reaped, and nobody tells when
	}
}

// kill takes a handle of the process first and then looks again whether it is
// in the cgroup: the number alone may have passed to another.
func kill(dir string, pid int) {
	p, err := os.FindProcess(pid)
	if err != nil {
		return
	}
	defer p.Release()
	if pids, err := Processes(dir); err == nil && slices.Contains(pids, pid) {
		p.Signal(syscall.SIGKILL) // an error means that it has just ended
	}
}

// Processes lists the processes in the cgroup at dir and below it. A cgroup
// that does not exist has none.
func Processes(dir string) ([]int, error) {
	var pids []int
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return ignoreGone(err)
		}
		raw, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		for field := range strings.FieldsSeq(string(raw)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
		return ignoreGone(err)
	})
	if err != nil {
		return nil, fmt.Errorf("list the processes of cgroup %s: %w", dir, err)
	}
	return pids, nil
}

// ignoreGone: a cgroup may be removed at any moment.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		return nil
	}
	return err
}

// Move moves a process into the cgroup at dir.
func Move(dir string, pid int) error {
	if pid <= 0 {
		return fmt.Errorf("move process %d to cgroup %s: no such process", pid, dir) // 0 would be ourselves
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		return fmt.Errorf("move process %d to cgroup %s: %w", pid, dir, err)
	}
	return nil
}
