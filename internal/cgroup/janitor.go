//go:build linux

package cgroup

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// janitorScript waits until its standard input ends and then does what Remove
// does. $1 is the directory.
const janitorScript = `
read -r line
[ -d "$1" ] || exit 0
echo 1 >"$1/cgroup.kill"
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
	find "$1" -depth -type d -exec rmdir {} \; 2>/dev/null
	[ -d "$1" ] || exit 0
	sleep 0.1
done
`

// Temporary is a cgroup that does not outlive the process that made it, not
// even if that is killed: a process of its own watches over it.
type Temporary struct {
	Dir     string
	janitor *exec.Cmd
	alive   io.WriteCloser // ends with this process; the janitor waits for that
}

// CreateTemporary makes the cgroup name below the root of the hierarchy.
func CreateTemporary(name string) (*Temporary, error) {
	root, err := Root()
	if err != nil {
		return nil, err
	}
	return CreateTemporaryIn(root, name)
}

// CreateTemporaryIn makes the cgroup name in the cgroup at parent. It must
// not exist yet.
func CreateTemporaryIn(parent, name string) (*Temporary, error) {
	dir := filepath.Join(parent, name)
	err := os.Mkdir(dir, 0o755)
	if err != nil {
		return nil, fmt.Errorf("create cgroup: %w", err)
	}
	t := &Temporary{Dir: dir, janitor: exec.Command("/bin/sh", "-c", janitorScript, "waybill-janitor", dir)}
	// A session of its own: Ctrl-C at the terminal must not reach it.
	t.janitor.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if t.alive, err = t.janitor.StdinPipe(); err == nil {
		err = t.janitor.Start()
	}
	if err != nil {
		Remove(dir)
		return nil, fmt.Errorf("start janitor of cgroup %s: %w", dir, err)
	}
	return t, nil
}

// Close kills the processes in the cgroup and removes it.
func (t *Temporary) Close() error {
	err := Remove(t.Dir)
	t.alive.Close()
	t.janitor.Wait()
	return err
}
