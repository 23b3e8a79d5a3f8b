//go:build linux

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

type process struct {
	pid  int
	name string // as the kernel has it: 15 bytes of the program's or the script's name
	exe  string // path; empty if the caller may not see it
}

func (p process) String() string { return fmt.Sprintf("%s[%d]", p.name, p.pid) }

// is tells whether the process runs the program. A script's name is the
// kernel's name of the process; its executable is the interpreter.
func (p process) is(program string) bool {
	return filepath.Base(p.exe) == program || p.name == program[:min(len(program), 15)]
}

// processes is what /proc shows, read once.
type processes struct {
	all       []process
	ofSocket  map[uint32][]process // by inode number
	ofProgram map[uint32][]process // by id: who holds the program or a link to it
	hidden    int                  // processes whose descriptors the caller may not see
}

// readProcesses walks the descriptors of all processes. Those that end
// meanwhile are left out.
func readProcesses(ctx context.Context) processes {
	ps := processes{ofSocket: make(map[uint32][]process), ofProgram: make(map[uint32][]process)}
	dirs, _ := filepath.Glob("/proc/[0-9]*") // fails only for a malformed pattern
	for _, dir := range dirs {
		if ctx.Err() != nil {
			break
		}
		comm, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil {
			continue
		}
		p := process{name: strings.TrimSpace(string(comm))}
		p.pid, _ = strconv.Atoi(filepath.Base(dir))
		p.exe, _ = os.Readlink(filepath.Join(dir, "exe"))
		ps.all = append(ps.all, p)
		ps.readDescriptors(dir, p)
	}
	return ps
}

func (ps *processes) readDescriptors(dir string, p process) {
	descriptors, err := os.ReadDir(filepath.Join(dir, "fd"))
	if errors.Is(err, fs.ErrPermission) {
		ps.hidden++
	}
	for _, d := range descriptors {
		target, err := os.Readlink(filepath.Join(dir, "fd", d.Name()))
		if err != nil {
			continue
		}
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			if n, err := strconv.ParseUint(strings.TrimSuffix(inode, "]"), 10, 32); err == nil {
				ps.ofSocket[uint32(n)] = append(ps.ofSocket[uint32(n)], p)
			}
		}
		if strings.HasPrefix(target, "anon_inode:bpf") {
			if id, ok := programID(filepath.Join(dir, "fdinfo", d.Name())); ok {
				ps.addHolder(id, p)
			}
		}
	}
}

// addHolder names a process once that holds a program by several descriptors.
func (ps *processes) addHolder(id uint32, p process) {
	holders := ps.ofProgram[id]
	if len(holders) == 0 || holders[len(holders)-1].pid != p.pid {
		ps.ofProgram[id] = append(holders, p)
	}
}

// programID reads which program a descriptor of a program or a link is for.
func programID(fdinfo string) (uint32, bool) {
	b, err := os.ReadFile(fdinfo)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "prog_id:"); ok {
			id, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
			return uint32(id), err == nil
		}
	}
	return 0, false
}

// running returns the first process that runs one of the programs.
func (ps *processes) running(programs ...string) (process, bool) {
	for _, p := range ps.all {
		for _, name := range programs {
			if p.is(name) {
				return p, true
			}
		}
	}
	return process{}, false
}

// list names processes, the first few of many.
func list(ps []process) string {
	const few = 3
	names := make([]string, 0, few)
	for _, p := range ps[:min(few, len(ps))] {
		names = append(names, p.String())
	}
	s := strings.Join(names, ", ")
	if more := len(ps) - few; more > 0 {
		s += fmt.Sprintf(" and %d more", more)
	}
	return s
}
