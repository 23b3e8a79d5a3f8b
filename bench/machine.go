//go:build linux

package main

import (
	"bufio"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// machine is what the figures depend on beside the code.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Arch   string `json:"arch"`
	Kernel string `json:"kernel"`
	Commit string `json:"commit,omitempty"`
}

func thisMachine() machine {
	return machine{
		CPU:    cpuModel(),
		Cores:  runtime.NumCPU(),
		Arch:   runtime.GOARCH,
		Kernel: kernelRelease(),
		Commit: commit(),
	}
}

// cpuModel is "unknown CPU" where /proc/cpuinfo does not tell, as on arm64.
func cpuModel() string {
	const unknown = "unknown CPU"
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return unknown
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		if strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return unknown
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// commit is empty outside a git working tree.
func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--tags", "--dirty").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
