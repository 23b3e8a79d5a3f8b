//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/waybill-net/waybill/internal/control"
)

// daemon is the waybill daemon, which may die and be started again.
type daemon struct {
	scene  *scene
	log    *os.File
	client control.Client

	mu     sync.Mutex
	cmd    *exec.Cmd
	ended  chan struct{} // closed when cmd has ended
	wanted bool          // if it ends, nobody has ended it
	deaths int           // that nobody wanted
}

const readyTimeout = 30 * time.Second

func startDaemon(s *scene) (*daemon, error) {
	log, err := os.OpenFile(filepath.Join(workDir, "log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	d := &daemon{scene: s, log: log, client: control.Client{Socket: filepath.Join(runDir, "waybill.sock")}}
	return d, d.start()
}

// places are the flags that say where the daemon is at work.
func (d *daemon) places() []string {
	return []string{
		"--scope", d.scene.root.Dir, "--state", stateDir, "--run-dir", runDir, "--cgroup", d.scene.dir("waybill"),
	}
}

// start starts a daemon and waits until it says that it is ready.
func (d *daemon) start() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	address := filepath.Join(workDir, "notify")
	os.Remove(address)
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address})
	if err != nil {
		return err
	}
	defer notify.Close()
	line := append([]string{"-c", d.scene.memory.join(memoryState) + `exec "$0" "$@"`, waybillPath, "daemon"}, d.places()...)
	cmd := exec.Command("/bin/sh", append(line, "--policy", policyPath, "--data-dir", dataDir)...)
	cmd.Stdout, cmd.Stderr = d.log, d.log
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+address)
	if err := d.scene.start("daemon", cmd); err != nil {
		return err
	}
	d.cmd, d.ended, d.wanted = cmd, make(chan struct{}), true
	go d.wait(cmd, d.ended, notify)
	notify.SetReadDeadline(time.Now().Add(readyTimeout))
	buf := make([]byte, 100)
	if n, err := notify.Read(buf); err != nil || string(buf[:n]) != "READY=1" {
		return fmt.Errorf("start the daemon: it is not ready: %q, %w; it printed:\n%s", buf[:n], err, d.said())
	}
	return nil
}

func (d *daemon) wait(cmd *exec.Cmd, ended chan struct{}, notify io.Closer) {
	cmd.Wait()
	notify.Close() // nobody is left to be ready
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.wanted && d.cmd == cmd {
		d.deaths++
	}
	close(ended)
}

// end ends the daemon with a signal.
func (d *daemon) end(signal syscall.Signal) {
	d.mu.Lock()
	d.wanted = false
	cmd, ended := d.cmd, d.ended
	d.mu.Unlock()
	cmd.Process.Signal(signal)
	<-ended
}

// revive starts the daemon if it has ended.
func (d *daemon) revive() error {
	d.mu.Lock()
	ended := isClosed(d.ended)
	d.mu.Unlock()
	if !ended {
		return nil
	}
	return d.start()
}

func (d *daemon) pid() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cmd.Process.Pid
}

func (d *daemon) unwantedDeaths() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.deaths
}

func (d *daemon) signal(s syscall.Signal) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cmd.Process.Signal(s)
}

const askTimeout = 10 * time.Second

func (d *daemon) status(ctx context.Context) (*control.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return d.client.Status(ctx)
}

// waitStatus waits until the daemon says what is wanted.
func (d *daemon) waitStatus(ctx context.Context, what string, timeout time.Duration, wanted func(*control.Status) bool) (*control.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		s, err := d.status(ctx)
		if err == nil && wanted(s) {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return s, errors.Join(fmt.Errorf("wait %v for %s", timeout, what), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// count answers a question in SQL whose answer is a number. The flows of a
// long run are many.
func (d *daemon) count(ctx context.Context, query string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	answer, err := d.client.SQL(ctx, query)
	if err != nil {
		return 0, err
	}
	n, err := answer.Rows[0][0].(json.Number).Int64()
	return int(n), err
}

// off takes everything away, as an administrator would.
func (d *daemon) off() (string, error) {
	cmd := exec.Command(waybillPath, append([]string{"off"}, d.places()...)...)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// said is the end of what the daemon and the proxies printed.
func (d *daemon) said() string {
	const most = 4000
	raw, err := os.ReadFile(d.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-most):])
}
