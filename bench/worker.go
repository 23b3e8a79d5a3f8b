//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// worker is the bench's side of a worker process.
type worker struct {
	name    string
	cmd     *exec.Cmd
	orders  io.WriteCloser // the process ends when this is closed
	replies *json.Decoder
}

// commandFor prepares a worker; it inherits cgroup and namespace.
func commandFor(ctx context.Context, role string, cpu int, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "/proc/self/exe", append([]string{childArg, role, strconv.Itoa(cpu)}, args...)...)
}

// startIn starts a worker in the cgroup at dir.
func startIn(dir string, cmd *exec.Cmd, flags uintptr, name string) (*worker, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("start worker %s: %w", name, err)
	}
	defer d.Close()
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(d.Fd()), Cloneflags: flags}
	return start(cmd, name)
}

func start(cmd *exec.Cmd, name string) (*worker, error) {
	cmd.Stderr = os.Stderr
	orders, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start worker %s: %w", name, err)
	}
	replies, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start worker %s: %w", name, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start worker %s: %w", name, err)
	}
	return &worker{name: name, cmd: cmd, orders: orders, replies: json.NewDecoder(replies)}, nil
}

// do gives an order and waits for the reply.
func (w *worker) do(o order) (reply, error) {
	if err := json.NewEncoder(w.orders).Encode(o); err != nil {
		return reply{}, fmt.Errorf("tell worker %s to %s: %w", w.name, o.Op, err)
	}
	r, err := w.read()
	if err != nil {
		return r, fmt.Errorf("tell worker %s to %s: %w", w.name, o.Op, err)
	}
	return r, nil
}

func (w *worker) read() (r reply, err error) {
	if err := w.replies.Decode(&r); err != nil {
		return r, fmt.Errorf("read reply: %w", err)
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

func (w *worker) stop() {
	w.orders.Close()
	w.cmd.Wait()
}
