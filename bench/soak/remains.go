//go:build linux

package main

import (
	"bufio"
	"os"
	"strings"
)

// remains is what a run has left behind.
type remains struct {
	Maps    map[string]int `json:"map_entries"`
	Sockets []string       `json:"sockets"`
	Origin  int            `json:"origin_connections"`

	Before map[string]files    `json:"files_before"`
	After  map[string]files    `json:"files_after"`
	Names  map[string][]string `json:"files,omitempty"` // of the processes that have too many
}

func (r *remains) none() bool {
	for _, n := range r.Maps {
		if n > 0 {
			return false
		}
	}
	return len(r.Sockets) == 0 && r.Origin == 0 && r.grown() == 0
}

// grown is how many descriptors there are too many, in all processes.
func (r *remains) grown() (n int) {
	for name, f := range r.After {
		n += f.grown(r.Before[name])
	}
	return n
}

func (r *runner) remains() (left remains, err error) {
	left.Before = r.before
	if left.After, err = r.files(); err != nil {
		return left, err
	}
	left.Names = make(map[string][]string)
	for name, pid := range r.pids() {
		if left.After[name].grown(left.Before[name]) > 0 {
			left.Names[name], _ = fileNames(pid)
		}
	}
	maps, err := readMaps()
	if err != nil {
		return left, err
	}
	left.Maps, left.Origin = maps.entries, int(r.origin.open.Load())
	err = r.scene.inside(func() (err error) { left.Sockets, err = socketsLeft(); return err })
	return left, err
}

// pids are those of the processes that must not grow.
func (r *runner) pids() map[string]int {
	pids := map[string]int{daemonName: r.daemon.pid()}
	for _, name := range chain {
		pids[name] = r.scene.pid(name)
	}
	return pids
}

func (r *runner) files() (map[string]files, error) {
	all := make(map[string]files)
	for name, pid := range r.pids() {
		f, err := filesOf(pid)
		if err != nil {
			return nil, err
		}
		all[name] = f
	}
	return all, nil
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
