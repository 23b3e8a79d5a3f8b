package run

import (
	"bufio"
	"errors"
	"os"
	"strings"
)

// ownCgroup returns the cgroup (v2) of this process, from the root of the
// hierarchy. A scope below it keeps the command under the limits, and in front
// of the proxies, that this process has itself: a run inside a run is a chain
// of two.
func ownCgroup() (string, error) {
	f, err := os.Open("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if path, ok := strings.CutPrefix(lines.Text(), "0::"); ok {
			return path, nil
		}
	}
	return "", errors.New("find the cgroup of this process: the kernel has no cgroup v2")
}
