//go:build linux

package run

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"

	"github.com/waybill-net/waybill/internal/supervise"
)

// ExecError says that the command can not be run. Status is a shell's: 127 if
// it was not found, 126 if it can not be executed.
type ExecError struct {
	Status int
	Err    error
}

func (e *ExecError) Error() string { return e.Err.Error() }
func (e *ExecError) Unwrap() error { return e.Err }

// app is the command.
type app struct {
	name string
	path string
	args []string
	env  []string
	user *supervise.User
	cmd  *exec.Cmd
}

func newApp(opts Options) (*app, error) {
	a := &app{name: opts.Command[0], args: opts.Command, env: os.Environ()}
	var err error
	if a.path, err = exec.LookPath(a.name); err != nil {
		return nil, execError(a.name, err)
	}
	if opts.User != "" {
		if a.user, err = supervise.LookupUser(opts.User); err != nil {
			return nil, err
		}
		a.env = a.user.Environ(a.env)
	}
	return a, nil
}

func execError(name string, err error) error {
	status := 126
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		status = 127
	}
	// Without what exec and os add: it is the name again.
	var lookup *exec.Error
	var path *fs.PathError
	if errors.As(err, &lookup) {
		err = lookup.Err
	}
	if errors.As(err, &path) {
		err = path.Err
	}
	return &ExecError{status, fmt.Errorf("run %s: %w", name, err)}
}

// start starts the command in the cgroup, or without one in that of this
// process, and in the process group of this process: the terminal then treats
// both as one, for Ctrl-C as for Ctrl-Z.
func (a *app) start(cgroup string) error {
	a.cmd = &exec.Cmd{
		Path: a.path, Args: a.args, Env: a.env,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{},
	}
	if cgroup != "" {
		dir, err := os.Open(cgroup)
		if err != nil {
			return err
		}
		defer dir.Close()
		a.cmd.SysProcAttr.UseCgroupFD, a.cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	if a.user != nil {
		a.cmd.SysProcAttr.Credential = a.user.Credential()
	}
	if err := a.cmd.Start(); err != nil {
		return execError(a.name, err)
	}
	return nil
}

func (a *app) process() *os.Process { return a.cmd.Process }

// wait returns the command's status as a shell would.
func (a *app) wait() int {
	a.cmd.Wait() // an error says no more than the status
	status := a.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
