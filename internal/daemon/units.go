//go:build linux

package daemon

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/waybill-net/waybill/internal/cgroup"
)

// systemctlTimeout bounds the question to systemd, which is asked while other
// changes wait.
const systemctlTimeout = 2 * time.Second

// units remembers for a moment where units are: one change asks several
// times, and systemd may be slow to answer.
type units struct {
	asked time.Time
	dirs  map[string]string
}

const unitsAge = time.Second

func (u *units) cgroup(scope, unit string) string {
	if u.dirs == nil || time.Since(u.asked) > unitsAge {
		u.asked, u.dirs = time.Now(), make(map[string]string)
	}
	dir, known := u.dirs[unit]
	if !known {
		dir = unitCgroup(scope, unit)
		u.dirs[unit] = dir
	}
	return dir
}

// unitCgroup returns where the processes of a systemd unit are: where systemd
// says, or, while the unit does not run, where it is going to put them unless
// it is configured otherwise.
func unitCgroup(scope, unit string) string {
	if dir := askSystemd(unit); dir != "" {
		return dir
	}
	switch {
	case strings.HasSuffix(unit, ".slice"):
		return filepath.Join(scope, slicePath(unit))
	case strings.HasSuffix(unit, ".service"), strings.HasSuffix(unit, ".scope"):
		return filepath.Join(scope, "system.slice", unit)
	}
	return filepath.Join(scope, unit)
}

func askSystemd(unit string) string {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return "" // another init
	}
	ctx, cancel := context.WithTimeout(context.Background(), systemctlTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", "show", "--property=ControlGroup", "--value", "--", unit).Output()
	path := strings.TrimSpace(string(out))
	if err != nil || path == "" {
		return ""
	}
	root, err := cgroup.Root()
	if err != nil {
		return ""
	}
	return filepath.Join(root, path)
}

// slicePath unfolds the name of a slice: a-b.slice lies in a.slice.
func slicePath(unit string) string {
	name := strings.TrimSuffix(unit, ".slice")
	var path []string
	for i, c := range name {
		if c == '-' && i > 0 {
			path = append(path, name[:i]+".slice")
		}
	}
	return filepath.Join(append(path, unit)...)
}
