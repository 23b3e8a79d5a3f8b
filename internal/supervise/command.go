//go:build linux

// Package supervise keeps programs running: each in a cgroup of its own, as a
// user of its own, apart from the terminal, and started again when it ends.
package supervise

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/waybill-net/waybill/internal/netns"
)

// Command says what to run and where. Name, Path and Cgroup must be given.
type Command struct {
	Name string   // for messages and in front of lines of output
	Path string   // of the program
	Args []string // without the program's name
	Arg0 string   // the name that the program sees as its own; default Path
	Env  []string // default: that of this process
	Dir  string   // working directory; default: that of this process

	// Cgroup is the directory of an existing cgroup that holds this program
	// and nothing else: what is left in it when the program ends is killed.
	Cgroup string

	User  *User        // default: as this process
	NetNS *netns.NetNS // default: that of this process

	// Log is the program's output, if given. The program then does not depend
	// on this process and can outlive it. Open it for appending.
	Log *os.File

	// Output gets the lines that the program prints, each with its name in
	// front, in one Write. Without Log and Output they are only kept for
	// messages.
	Output io.Writer

	// OnExit hears of every end that nobody asked for, with the time until the
	// next start.
	OnExit func(exit string, wait time.Duration)
}

func (c *Command) check() error {
	if c.Name == "" || c.Path == "" || c.Cgroup == "" {
		return fmt.Errorf("start %q: a name, a path and a cgroup must be given", c.Name)
	}
	if c.Log != nil && c.Output != nil {
		return fmt.Errorf("start %s: output to a file and to a writer at once", c.Name)
	}
	return nil
}

// start starts the program once. output is both its stdout and its stderr.
func (c *Command) start(output *os.File) (*exec.Cmd, error) {
	dir, err := os.Open(c.Cgroup)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	defer dir.Close()
	cmd := &exec.Cmd{
		Path: c.Path, Args: append([]string{c.Path}, c.Args...),
		Env: c.Env, Dir: c.Dir, Stdout: output, Stderr: output,
		SysProcAttr: &syscall.SysProcAttr{
			UseCgroupFD: true, CgroupFD: int(dir.Fd()),
			// A session of its own: Ctrl-C at our terminal is not for it.
			Setsid: true,
		},
	}
	if c.Arg0 != "" {
		cmd.Args[0] = c.Arg0
	}
	if c.User != nil {
		cmd.SysProcAttr.Credential = c.User.Credential()
	}
	do := func(f func() error) error { return f() }
	if c.NetNS != nil {
		do = c.NetNS.Do
	}
	if err := do(cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s%s: %w", c.Name, asUser(c.User), err)
	}
	return cmd, nil
}

// asUser names the user in an error: it is often the reason.
func asUser(u *User) string {
	if u == nil {
		return ""
	}
	return " as " + u.Name
}
