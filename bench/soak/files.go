//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// files counts the descriptors of a process.
type files struct {
	Sockets int `json:"sockets"`
	Pipes   int `json:"pipes"`
	Others  int `json:"others"`
}

func (f files) sum() int { return f.Sockets + f.Pipes + f.Others }

// atRest is what a process has when it does nothing, by two looks at it: a
// connection may just be ending, and Go keeps pipes for the next splice.
func (f files) atRest(g files) files {
	return files{min(f.Sockets, g.Sockets), max(f.Pipes, g.Pipes), min(f.Others, g.Others)}
}

// grown is how many more of a kind there are than there were.
func (f files) grown(was files) int {
	return max(0, f.Sockets-was.Sockets) + max(0, f.Pipes-was.Pipes) + max(0, f.Others-was.Others)
}

func (f files) String() string {
	return fmt.Sprintf("%d sockets, %d pipes, %d others", f.Sockets, f.Pipes, f.Others)
}

func filesOf(pid int) (files, error) {
	names, err := fileNames(pid)
	var f files
	for _, to := range names {
		switch {
		case strings.HasPrefix(to, "socket:"):
			f.Sockets++
		case strings.HasPrefix(to, "pipe:"):
			f.Pipes++
		default:
			f.Others++
		}
	}
	return f, err
}

// fileNames lists what the descriptors of a process lead to.
func fileNames(pid int) (names []string, err error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // closed meanwhile
		}
		if err != nil {
			return nil, err
		}
		names = append(names, to)
	}
	return names, nil
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
