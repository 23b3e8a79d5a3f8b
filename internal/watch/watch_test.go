//go:build linux

package watch_test

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/cgroup"
	"github.com/waybill-net/waybill/internal/watch"
)

// start runs a watcher and returns a channel that hears at every look which
// inode is at the path; 0: none.
func start(t *testing.T, path string) <-chan uint64 {
	t.Helper()
	w, err := watch.New(func() []string { return []string{path} })
	if err != nil {
		t.Fatal(err)
	}
	looks := make(chan uint64, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx, func() { looks <- inode(path) })
	}()
	t.Cleanup(func() { cancel(); <-done })
	<-looks // it watches now
	return looks
}

func inode(path string) uint64 {
	var st syscall.Stat_t
	if syscall.Stat(path, &st) != nil {
		return 0
	}
	return st.Ino
}

// expect waits until a look has seen what is at the path now.
func expect(t *testing.T, looks <-chan uint64, path, what string) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for want := inode(path); ; {
		select {
		case got := <-looks:
			if got == want {
				return
			}
		case <-timeout:
			t.Fatalf("%s was not noticed", what)
		}
	}
}

func TestProgramIsReplaced(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "real", "program"), filepath.Join(dir, "link")
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, path)
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	looks := start(t, link)
	// As a package manager does it.
	write(t, path+".new")
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	expect(t, looks, link, "the replacement of what a link leads to")
}

// TestLinkInTheMiddle: as of /etc/alternatives, and of a directory "current".
func TestLinkInTheMiddle(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"v1", "v2", "v3"} {
		if err := os.Mkdir(in(name), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, in(name+"/program"))
	}
	link := func(target, name string) {
		t.Helper()
		if err := os.Symlink(target, in(name+".new")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(in(name+".new"), in(name)); err != nil {
			t.Fatal(err)
		}
	}
	link("v1", "current")
	link("current/program", "middle")
	link(in("middle"), "program")
	looks := start(t, in("program"))
	link("v2", "current")
	expect(t, looks, in("program"), "another directory behind a link in the middle")
	link("v3/program", "middle")
	expect(t, looks, in("program"), "another link in the middle")
	// The directory itself is exchanged, and then what is in the new one.
	for _, step := range [][2]string{{"v3", "old"}, {"v1", "v3"}} {
		if err := os.Rename(in(step[0]), in(step[1])); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, looks, in("program"), "another directory")
	write(t, in("v3/next"))
	if err := os.Rename(in("v3/next"), in("v3/program")); err != nil {
		t.Fatal(err)
	}
	expect(t, looks, in("program"), "a replacement in it")
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestPathAppears(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a", "b")
	looks := start(t, path)
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	expect(t, looks, path, "the directory above")
	write(t, path)
	expect(t, looks, path, "the path")
}

// TestCgroupRestarts: cgroups are directories of a file system of their own.
func TestCgroupRestarts(t *testing.T) {
	temp, err := cgroup.CreateTemporary("waybill-test-watch-" + filepath.Base(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer temp.Close()
	unit := filepath.Join(temp.Dir, "unit.service")
	looks := start(t, unit)
	for _, step := range []func() error{
		func() error { return os.Mkdir(unit, 0o755) },
		func() error { return os.Remove(unit) },
		func() error { return os.Mkdir(unit, 0o755) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
		expect(t, looks, unit, "the cgroup")
	}
}
