//go:build linux

package control_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/control/controltest"
	"github.com/waybill-net/waybill/internal/flowstore"
)

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "waybill.sock")
	for _, tt := range []struct {
		group string
		mode  fs.FileMode
		gid   uint32
	}{
		{controltest.Group, 0o660, controltest.GID},
		{"no-such-group", 0o600, 0},
	} {
		s := &control.Server{Group: tt.group}
		l, err := s.Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); info.Mode() != fs.ModeSocket|tt.mode || st.Gid != tt.gid || st.Uid != 0 {
			t.Errorf("group %s: got %v of %d:%d", tt.group, info.Mode(), st.Uid, st.Gid)
		}
		if _, err := s.Listen(path); err == nil || !strings.HasSuffix(err.Error(), "another daemon does") {
			t.Errorf("a second daemon: got %v", err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
			t.Errorf("it leaves %v", left)
		}
	}
}

func TestListenReplaces(t *testing.T) {
	s := &control.Server{Group: controltest.Group}
	path := filepath.Join(t.TempDir(), "waybill.sock")
	leave(t, path)
	leave(t, path+".new") // by a daemon that was killed
	first, err := s.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	// A listener whose name another has taken leaves that alone.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := s.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
	second.Close()

	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Listen(path); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file: got %v", err)
	}
	if text, err := os.ReadFile(path); string(text) != "precious" {
		t.Errorf("the file has %q, %v", text, err)
	}
}

// TestManyConnections: one user can not keep others out, and gets an answer.
func TestManyConnections(t *testing.T) {
	socket, _ := controltest.Serve(t, controltest.New(t))
	holder := exec.Command("/usr/bin/python3", "-c", fmt.Sprintf(`
import socket, sys, time
held = []
for _ in range(65):
    s = socket.socket(socket.AF_UNIX)
    s.connect(%q)
    held.append(s)
answer = held[-1].recv(1000, socket.MSG_WAITALL)
print(answer.split()[1].decode(), answer.count(b"you have 64 connections open"), flush=True)
for s in held[:-1]:
    s.close()
status, end = "", time.monotonic() + 10 # the server notices in its own time
while status != "200" and time.monotonic() < end:
    s = socket.socket(socket.AF_UNIX)
    s.connect(%q)
    s.sendall(b"GET /v1/version HTTP/1.0\r\n\r\n")
    status = s.recv(1000).split()[1].decode()
    s.close()
print(status, flush=True)
sys.stdin.read()
`, socket, socket))
	holder.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: controltest.Alice, Gid: controltest.GID}}
	stdin, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer holder.Wait()
	defer holder.Process.Kill()
	defer stdin.Close()
	lines := bufio.NewReader(stdout)
	if line, err := lines.ReadString('\n'); line != "503 1\n" {
		t.Errorf("the connection too many: got %q, %v", line, err)
	}
	if _, err := (control.Client{Socket: socket}).Version(context.Background()); err != nil {
		t.Errorf("root is kept out: %v", err)
	}
	if line, err := lines.ReadString('\n'); line != "200\n" {
		t.Errorf("after the others were closed: got %q, %v", line, err)
	}
}

// TestPeer: who is at the other end, and that it still is.
func TestPeer(t *testing.T) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var groups []uint32
	for gid := range uint32(100) {
		groups = append(groups, 1000+gid)
	}
	child := exec.Command("/usr/bin/python3", "-c", `
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
if os.fork() == 0:
    s.recv(1) # holds the connection when the one who made it is gone
else:
    sys.stdin.read()
`, l.Addr().String())
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 0, Gid: 12, Groups: groups}}
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	l.SetDeadline(time.Now().Add(20 * time.Second))
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p, err := control.PeerOf(conn)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.PID != child.Process.Pid || p.UID != 0 || p.GID != 12 || len(p.Groups) != 100 {
		t.Errorf("got %+v", p)
	}
	if !p.In(12) || !p.In(1099) || p.In(1100) {
		t.Errorf("groups: got %v", p.Groups)
	}
	if err := p.Check(); err != nil {
		t.Error(err)
	}
	stdin.Close()
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
	if err := p.Check(); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("after its end: got %v", err)
	}
}

// TestStop: neither idle connections nor streams keep the daemon from ending.
func TestStop(t *testing.T) {
	b := controltest.New(t)
	socket, stop := controltest.Serve(t, b)
	idle, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	io.WriteString(idle, "GET /v1/version HTTP/1.1\r\nHost: waybill\r\n\r\n")
	if answer, err := http.ReadResponse(bufio.NewReader(idle), nil); err != nil || answer.StatusCode != 200 {
		t.Fatal(answer, err)
	}
	follower, err := control.Client{Socket: socket}.Follow(context.Background(), flowstore.Query{})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	stop()
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
	if f, err := follower.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("the follower got %v, %v", f, err)
	}
	if _, err := (control.Client{Socket: socket}).Version(context.Background()); !errors.Is(err, control.ErrNoDaemon) {
		t.Errorf("got %v", err)
	}
}

// TestFollowerGone: a follower that hears of nothing, and whose request had a
// long body, is noticed to be gone.
func TestFollowerGone(t *testing.T) {
	b := controltest.New(t)
	socket, _ := controltest.Serve(t, b)
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(20 * time.Second))
	const body = 300_000 // net/http itself reads less
	fmt.Fprintf(c, "GET /v1/flows?follow=1&program=none HTTP/1.1\r\nHost: waybill\r\nContent-Length: %d\r\n\r\n%s", body, strings.Repeat("x", body))
	if answer, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || answer.StatusCode != 200 {
		t.Fatal(answer, err)
	}
	c.Close()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		select {
		case b.Changes <- controltest.Changed(8, controltest.Alice):
		case <-time.After(500 * time.Millisecond):
			return // nobody follows any more
		}
	}
	t.Error("somebody follows still")
}
