//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
)

// kernelMaps is what the pinned maps hold.
type kernelMaps struct {
	entries map[string]int // of the maps that are empty when no connection is open
	memory  uint64         // of all maps, as the kernel accounts for them
}

// policyMap is the one hash map that a policy fills.
const policyMap = "contexts"

// readMaps reads them past the daemon, which may not run.
func readMaps() (kernelMaps, error) {
	k := kernelMaps{entries: make(map[string]int)}
	dir := filepath.Join(stateDir, "maps")
	files, err := os.ReadDir(dir)
	if err != nil {
		return k, err
	}
	for _, file := range files {
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, file.Name()), nil)
		if err != nil {
			return k, fmt.Errorf("open map %s: %w", file.Name(), err)
		}
		err = k.add(file.Name(), m)
		if err = errors.Join(err, m.Close()); err != nil {
			return k, fmt.Errorf("read map %s: %w", file.Name(), err)
		}
	}
	return k, nil
}

func (k *kernelMaps) add(name string, m *ebpf.Map) error {
	info, err := m.Info()
	if err != nil {
		return err
	}
	used, _ := info.Memlock()
	k.memory += used
	if m.Type() != ebpf.Hash || name == policyMap {
		return nil
	}
	k.entries[name] = 0
	for key, err := m.NextKeyBytes(nil); ; key, err = m.NextKeyBytes(key) {
		if err != nil || key == nil {
			return err
		}
		k.entries[name]++
	}
}

// files counts the descriptors of a process.
type files struct {
	Sockets int `json:"sockets"`
	Pipes   int `json:"pipes"`
	Others  int `json:"others"`
}

func (f files) sum() int { return f.Sockets + f.Pipes + f.Others }

// grown is how many more of a kind there are than there were.
func (f files) grown(was files) int {
	return max(0, f.Sockets-was.Sockets) + max(0, f.Pipes-was.Pipes) + max(0, f.Others-was.Others)
}

func (f files) String() string {
	return fmt.Sprintf("%d sockets, %d pipes, %d others", f.Sockets, f.Pipes, f.Others)
}

func filesOf(pid int) (files, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return files{}, err
	}
	var f files
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist): // closed meanwhile
		case err != nil:
			return f, err
		case strings.HasPrefix(to, "socket:"):
			f.Sockets++
		case strings.HasPrefix(to, "pipe:"):
			f.Pipes++
		default:
			f.Others++
		}
	}
	return f, nil
}

// socketsLeft lists the TCP sockets of the network namespace that neither
// listen nor wait out their time. It must be called inside.
func socketsLeft() (left []string, err error) {
	const listen, timeWait = "0A", "06"
	for _, family := range []string{"tcp", "tcp6"} {
		f, err := os.Open("/proc/thread-self/net/" + family)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		lines.Scan() // the heading
		for lines.Scan() {
			fields := strings.Fields(lines.Text())
			if len(fields) > 3 && fields[3] != listen && fields[3] != timeWait {
				left = append(left, strings.Join(fields[1:4], " "))
			}
		}
	}
	return left, nil
}

// residentOf is the memory of a process in bytes; 0: there is none.
func residentOf(pid int) uint64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	var size, resident uint64
	fmt.Sscan(string(raw), &size, &resident)
	return resident * uint64(os.Getpagesize())
}
