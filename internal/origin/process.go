//go:build linux

package origin

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/waybill-net/waybill/internal/flow"
)

// living is what /proc says of a process.
type living struct {
	executable string
	args       []string
}

var (
	errOtherProcess = errors.New("its number belongs to another process now")
	errOtherProgram = errors.New("it runs another program now")
)

// inspect looks at a process, if it still lives and runs the same program.
func inspect(p flow.Process) (living, error) {
	dir, err := os.Open(fmt.Sprintf("/proc/%d", p.PID))
	if err != nil {
		return living{}, err
	}
	defer dir.Close()
	// By this path every file is that of one process, also when it ends and
	// another gets its number.
	proc := fmt.Sprintf("/proc/self/fd/%d/", dir.Fd())
	stat, err := os.ReadFile(proc + "stat")
	if err != nil {
		return living{}, err
	}
	started, err := startTicks(stat)
	if err != nil {
		return living{}, err
	}
	if d := started - int64(p.Start/tick); d < -1 || d > 1 {
		return living{}, errOtherProcess
	}
	executable, err := executable(proc+"exe", p.Inode)
	if err != nil {
		return living{}, err
	}
	return living{executable, arguments(proc + "cmdline")}, nil
}

// tick is the kernel's USER_HZ, in which /proc counts on every architecture of
// ours.
const tick = 10 * time.Millisecond

// startTicks is field 22 of /proc/PID/stat: when the process started, in ticks
// since boot. Field 2 is a name in parentheses that may itself hold spaces and
// parentheses.
func startTicks(stat []byte) (int64, error) {
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("read /proc/PID/stat: %d fields after the name", len(fields))
	}
	ticks, err := strconv.ParseInt(fields[19], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read /proc/PID/stat: start time %q", fields[19])
	}
	return ticks, nil
}

// executable is where the link leads, if it leads to that inode. Devices are
// not compared: stat(2) and the kernel have different ones on btrfs and
// overlayfs.
func executable(link string, inode uint64) (string, error) {
	target, err := os.Readlink(link)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(link)
	if err != nil {
		return "", err
	}
	st := info.Sys().(*syscall.Stat_t)
	if st.Ino != inode {
		return "", errOtherProgram
	}
	if st.Nlink == 0 {
		// The kernel's mark; a file can also be called so.
		target = strings.TrimSuffix(target, " (deleted)")
	}
	return target, nil
}

const maxArguments = 4096 // bytes

// arguments are a help and no more: what can not be read is left out.
func arguments(path string) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxArguments))
	if err != nil || len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
}
