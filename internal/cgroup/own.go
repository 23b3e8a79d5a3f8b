//go:build linux

package cgroup

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Own returns the directory of the cgroup (v2) of this process.
func Own() (string, error) { return of("self") }

// Of returns that of another process.
func Of(pid int) (string, error) { return of(strconv.Itoa(pid)) }

func of(process string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	f, err := os.Open("/proc/" + process + "/cgroup")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if path, ok := strings.CutPrefix(lines.Text(), "0::"); ok {
			return filepath.Join(root, path), nil
		}
	}
	return "", errors.New("find the cgroup of a process: the kernel has no cgroup v2")
}
