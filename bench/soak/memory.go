//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/waybill-net/waybill/internal/cgroup"
)

// memory is cgroups of the memory controller. It uses that of cgroup v1, which
// is where a hybrid host has it.
//
//	waybill-soak-PID/
//	├── state/    the daemon, and what its maps allocate
//	├── proxies/  the proxies
//	└── starved/  one of them, for a while
//
// A process that moves takes nothing with it: the new cgroup pays for what it
// allocates from then on.
type memory struct{ root *cgroup.Temporary } // nil: this host has no such controller

const (
	memoryState   = "state"
	memoryProxies = "proxies"
	memoryStarved = "starved"
)

func newMemory() (*memory, error) {
	parent, err := memoryParent()
	if err != nil || parent == "" {
		return &memory{}, err
	}
	root, err := cgroup.CreateTemporaryIn(parent, fmt.Sprintf("waybill-soak-%d", os.Getpid()))
	if err != nil {
		return nil, err
	}
	m := &memory{root}
	for _, name := range []string{memoryState, memoryProxies, memoryStarved} {
		if err := os.Mkdir(m.dir(name), 0o755); err != nil {
			return nil, errors.Join(err, m.close())
		}
	}
	// The daemon is to wait for memory, not to be killed for want of it: that
	// is another fault.
	if err := os.WriteFile(filepath.Join(m.dir(memoryState), "memory.oom_control"), []byte("1"), 0); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

// memoryParent is this process's own cgroup of the memory controller; empty:
// there is none.
func memoryParent() (string, error) {
	mount, err := findField("/proc/self/mountinfo", func(line string) (string, bool) {
		before, after, _ := strings.Cut(line, " - ")
		fields, fs := strings.Fields(before), strings.Fields(after)
		if len(fields) < 5 || len(fs) < 3 || fs[0] != "cgroup" {
			return "", false
		}
		for option := range strings.SplitSeq(fs[2], ",") {
			if option == "memory" {
				return fields[4], true
			}
		}
		return "", false
	})
	if err != nil || mount == "" {
		return "", err
	}
	own, err := findField("/proc/self/cgroup", func(line string) (string, bool) {
		_, path, ok := strings.Cut(line, ":memory:")
		return path, ok
	})
	return filepath.Join(mount, own), err
}

func findField(path string, field func(line string) (string, bool)) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if found, ok := field(lines.Text()); ok {
			return found, nil
		}
	}
	return "", lines.Err()
}

func (m *memory) close() error {
	if m.root == nil {
		return nil
	}
	return m.root.Close()
}

func (m *memory) available() bool { return m.root != nil }

func (m *memory) dir(name string) string { return filepath.Join(m.root.Dir, name) }

// join is what a shell does before it becomes a program of this memory cgroup.
func (m *memory) join(name string) string {
	if !m.available() {
		return ""
	}
	return "echo $$ >" + filepath.Join(m.dir(name), "cgroup.procs") + " && "
}

func (m *memory) move(name string, pid int) error {
	return cgroup.Move(m.dir(name), pid)
}

// allow lets a memory cgroup have so many bytes more than it has now; a
// negative number: as many as it wants.
func (m *memory) allow(name string, more int) error {
	limit := -1
	if more >= 0 {
		used, err := m.read(name, "memory.usage_in_bytes")
		if err != nil {
			return err
		}
		limit = used + more
	}
	return os.WriteFile(filepath.Join(m.dir(name), "memory.limit_in_bytes"), []byte(strconv.Itoa(limit)), 0)
}

func (m *memory) read(name, file string) (int, error) {
	raw, err := os.ReadFile(filepath.Join(m.dir(name), file))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(raw)))
}
