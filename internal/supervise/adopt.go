//go:build linux

package supervise

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrEmpty is returned by [Adopt] for a cgroup without processes.
var ErrEmpty = errors.New("no process in the cgroup")

// Adopt takes charge of a program that another process, now gone, had started
// in the command's cgroup: the oldest process there is the program. When it
// ends, it is started again as if by Start. The error wraps ErrEmpty if there
// is none.
func Adopt(c Command) (*Process, error) {
	p, err := newProcess(c)
	if err != nil {
		return nil, err
	}
	main, err := openOldest(c.Cgroup)
	if err != nil {
		return nil, fmt.Errorf("adopt %s: %w", c.Name, err)
	}
	p.running(main.pid, main.signal)
	go p.keepRunning(func() string {
		main.wait()
		p.killRest()
		return "ended" // only a parent is told how
	})
	return p, nil
}

// stranger is a process that is not our child. Its descriptor, unlike its
// number, can not come to mean another one.
type stranger struct {
	pid   int
	pidfd *os.File
}

func openOldest(dir string) (*stranger, error) {
	pid, err := oldest(dir)
	if err != nil {
		return nil, err
	}
	// Non-blocking, so that the runtime waits for it without a thread.
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	s := &stranger{pid, os.NewFile(uintptr(fd), "pidfd")}
	// Between the two the number may have passed to another process.
	if again, err := oldest(dir); err != nil || again != pid {
		s.pidfd.Close()
		return nil, errors.Join(err, fmt.Errorf("process %d ended meanwhile", pid))
	}
	return s, nil
}

func (s *stranger) signal(sig syscall.Signal) error {
	conn, err := s.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = conn.Control(func(fd uintptr) { serr = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	return errors.Join(err, serr)
}

// wait returns when the process has ended: its descriptor is then readable.
// It closes the descriptor.
func (s *stranger) wait() {
	defer s.pidfd.Close()
	conn, err := s.pidfd.SyscallConn()
	if err != nil {
		return
	}
	conn.Read(func(fd uintptr) bool {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(ready, 0)
		return n == 1 && err == nil
	})
}

// oldest returns the process of the cgroup that started first.
func oldest(dir string) (int, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return 0, err
	}
	best, bestStart := 0, uint64(0)
	for _, field := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return 0, err
		}
		start, err := startTime(pid)
		if err != nil {
			continue // ended meanwhile
		}
		// Of two that started in the same tick, a child has the higher number.
		if best == 0 || start < bestStart || start == bestStart && pid < best {
			best, bestStart = pid, start
		}
	}
	if best == 0 {
		return 0, ErrEmpty
	}
	return best, nil
}

// startTime is field 22 of /proc/PID/stat. Field 2, the name, may contain
// anything but ends with the last parenthesis.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	stat := string(b)
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("read start of process %d: %d fields", pid, len(fields))
	}
	return strconv.ParseUint(fields[19], 10, 64)
}
