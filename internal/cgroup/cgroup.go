//go:build linux

// Package cgroup makes, finds and removes cgroups of the v2 hierarchy.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// mount is one cgroup v2 mount as this process sees it.
type mount struct {
	dir  string // where it is mounted
	root string // which cgroup is mounted there, from this process's cgroup namespace root
}

// findMount looks in mountinfo, not at /sys/fs/cgroup: on a hybrid host
// cgroup v2 is mounted beside v1, at /sys/fs/cgroup/unified or elsewhere.
func findMount() (mount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return mount{}, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		if !ok || !strings.HasPrefix(after, "cgroup2 ") {
			continue
		}
		// mount id, parent id, device, root, mount point, options, …
		if fields := strings.Fields(before); len(fields) >= 5 {
			return mount{dir: fields[4], root: fields[3]}, nil
		}
	}
	if err := lines.Err(); err != nil {
		return mount{}, err
	}
	return mount{}, errors.New("find the cgroup v2 file system: none is mounted; try: mount -t cgroup2 none /sys/fs/cgroup")
}

// Root returns the directory where the cgroup v2 file system is mounted.
func Root() (string, error) {
	m, err := findMount()
	return m.dir, err
}

// ID identifies a cgroup to the kernel programs.
type ID struct {
	ID    uint64 // as bpf_get_current_cgroup_id: the inode number of the directory
	Level uint32 // depth below the root of the hierarchy
}

// Identify returns the ID of the cgroup at path, a directory in the cgroup v2
// file system.
func Identify(path string) (ID, error) {
	if err := checkNamespace(); err != nil {
		return ID{}, fmt.Errorf("identify cgroup %s: %w", path, err)
	}
	m, err := findMount()
	if err != nil {
		return ID{}, err
	}
	rel, err := filepath.Rel(m.dir, path)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return ID{}, fmt.Errorf("identify cgroup %s: not below %s, where cgroup v2 is mounted", path, m.dir)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return ID{}, fmt.Errorf("identify cgroup %s: %w", path, err)
	}
	return ID{ID: st.Ino, Level: uint32(depth(m.root) + depth(rel))}, nil
}

// initialNamespace is the inode number of the first cgroup namespace: the
// kernel's PROC_CGROUP_INIT_INO.
const initialNamespace = 0xeffffffb

// checkNamespace makes sure that we see the hierarchy from its root. In a
// namespace of its own a process sees levels counted from somewhere below,
// and nothing tells it from where.
func checkNamespace() error {
	var st syscall.Stat_t
	if err := syscall.Stat("/proc/self/ns/cgroup", &st); err != nil {
		return err
	}
	if st.Ino != initialNamespace {
		return errors.New("this process is in a cgroup namespace of its own, and the kernel programs are not; run it in the host's (docker run --cgroupns=host)")
	}
	return nil
}

func depth(path string) int {
	path = strings.Trim(filepath.Clean(path), "/")
	if path == "" || path == "." {
		return 0
	}
	return strings.Count(path, "/") + 1
}

// removeTimeout bounds the wait for killed processes to leave their cgroup.
const removeTimeout = 5 * time.Second

// Remove kills every process in the cgroup at dir and below it and removes
// the directories. One that is already gone is no error.
func Remove(dir string) error {
	kill := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	if errors.Is(kill, fs.ErrNotExist) {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	// A killed process is in its cgroup until it has been torn down, and the
	// kernel tells nobody when: try again until the directories go.
	deadline := time.Now().Add(removeTimeout)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := removeTree(dir)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("remove cgroup %s: %w", dir, errors.Join(err, kill))
		}
		time.Sleep(wait)
	}
}

// removeTree removes the directories of a cgroup and those below it, deepest
// first. The files in them are the kernel's and go with them.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	err = syscall.Rmdir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
