//go:build linux

package origin_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/cgroup"
	"github.com/waybill-net/waybill/internal/flow"
	"github.com/waybill-net/waybill/internal/origin"
)

// child is a copy of cat of its own, in a cgroup of its own.
type child struct {
	cmd     *exec.Cmd
	path    string
	process flow.Process // as the kernel programs would report it
	unit    *cgroup.Temporary
}

func startChild(t *testing.T) *child {
	t.Helper()
	temp, err := cgroup.CreateTemporary(fmt.Sprintf("waybill-test-origin-%d-%d.scope", os.Getpid(), time.Now().UnixNano()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := temp.Close(); err != nil {
			t.Error(err)
		}
	})
	c := &child{unit: temp, path: filepath.Join(t.TempDir(), "a program")}
	program, err := os.ReadFile("/bin/cat")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.path, program, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(temp.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	c.cmd = exec.Command(c.path, "-u", "-")
	c.cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); c.cmd.Wait() })
	c.process = observe(t, c, dir)
	return c
}

// observe makes what the kernel would report, from other sources than the
// resolver's where there are any.
func observe(t *testing.T, c *child, cgroupDir *os.File) flow.Process {
	t.Helper()
	var exe, group syscall.Stat_t
	if err := syscall.Stat(c.path, &exe); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Fstat(int(cgroupDir.Fd()), &group); err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	ticks, err := strconv.ParseInt(strings.Fields(string(stat[strings.LastIndex(string(stat), ")")+1:]))[19], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return flow.Process{
		PID: uint32(c.cmd.Process.Pid), Comm: "a program", CgroupID: group.Ino, Device: exe.Dev, Inode: exe.Ino,
		Start: time.Duration(ticks)*10*time.Millisecond + 3*time.Millisecond,
	}
}

func (c *child) kill(t *testing.T) {
	t.Helper()
	c.cmd.Process.Kill()
	c.cmd.Wait()
	if err := cgroup.Remove(c.unit.Dir); err != nil {
		t.Fatal(err)
	}
}

func TestProcess(t *testing.T) {
	var r origin.Resolver
	c := startChild(t)
	name := filepath.Base(c.unit.Dir)
	want := flow.Details{Executable: c.path, Args: []string{c.path, "-u", "-"}, User: "root", Cgroup: "/" + name, Unit: name}
	if got := r.Details(c.process); !reflect.DeepEqual(got, want) {
		t.Errorf("alive:\ngot  %+v\nwant %+v", got, want)
	}
	reported := c.process
	reported.Args = []string{"as the kernel", "saw them"}
	if got := r.Details(reported); !reflect.DeepEqual(got.Args, reported.Args) {
		t.Errorf("arguments of the kernel: got %q", got.Args)
	}

	c.kill(t)
	want.Args = reported.Args
	if got := r.Details(reported); !reflect.DeepEqual(got, want) {
		t.Errorf("after its death:\ngot  %+v\nwant %+v", got, want)
	}
	// Another process of the same program is known as well.
	reported.PID, reported.Start = 1<<22-1, time.Hour
	if got := r.Details(reported); got.Executable != c.path || got.Unverified {
		t.Errorf("another process of the program: got %+v", got)
	}
}

// TestDead: of a process that nobody has seen alive there is only what it
// called itself.
func TestDead(t *testing.T) {
	var r origin.Resolver
	c := startChild(t)
	c.kill(t)
	want := flow.Details{Executable: "a program", Unverified: true, User: "root"}
	if got := r.Details(c.process); !reflect.DeepEqual(got, want) {
		t.Errorf("without arguments: got %+v, want %+v", got, want)
	}
	c.process.Args = []string{"/usr/bin/liar", "x"}
	want.Executable, want.Args = "/usr/bin/liar", c.process.Args
	if got := r.Details(c.process); !reflect.DeepEqual(got, want) {
		t.Errorf("with arguments: got %+v, want %+v", got, want)
	}
}

// TestNotTheSame: a number that is used again, and a process that has started
// another program, do not pass for the one that was reported.
func TestNotTheSame(t *testing.T) {
	c := startChild(t)
	for what, change := range map[string]func(*flow.Process){
		"started earlier":   func(p *flow.Process) { p.Start -= 30 * time.Millisecond },
		"started later":     func(p *flow.Process) { p.Start += 30 * time.Millisecond },
		"another program":   func(p *flow.Process) { p.Inode++ },
		"no such process":   func(p *flow.Process) { p.PID = 1<<22 - 1 },
		"no process at all": func(p *flow.Process) { p.PID = 0 },
	} {
		var r origin.Resolver
		p := c.process
		change(&p)
		if got := r.Details(p); !got.Unverified || got.Executable != "a program" || got.Args != nil {
			t.Errorf("%s: got %+v", what, got)
		}
	}
}

// TestDeletedProgram: a program that was replaced by an update has its old
// path still.
func TestDeletedProgram(t *testing.T) {
	var r origin.Resolver
	c := startChild(t)
	if err := os.Remove(c.path); err != nil {
		t.Fatal(err)
	}
	if got := r.Details(c.process); got.Executable != c.path || got.Unverified {
		t.Errorf("got %+v", got)
	}
}

func TestNestedCgroup(t *testing.T) {
	var r origin.Resolver
	c := startChild(t)
	id := strings.Repeat("0a", 32)
	dir := filepath.Join(c.unit.Dir, `app\x2d1.service`, "docker", id)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	group, err := cgroup.Identify(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := r.Details(flow.Process{CgroupID: group.ID})
	if want := "/" + filepath.Base(c.unit.Dir) + `/app\x2d1.service/docker/` + id; got.Cgroup != want {
		t.Errorf("cgroup: got %s, want %s", got.Cgroup, want)
	}
	if got.Unit != "app-1.service" || got.Container != id {
		t.Errorf("got %+v", got)
	}
	root, err := cgroup.Root()
	if err != nil {
		t.Fatal(err)
	}
	if group, err = cgroup.Identify(root); err != nil {
		t.Fatal(err)
	}
	if got := r.Details(flow.Process{CgroupID: group.ID}); got.Cgroup != "/" {
		t.Errorf("the root: got %q", got.Cgroup)
	}
	for _, none := range []uint64{0, 1 << 60} {
		if got := r.Details(flow.Process{CgroupID: none}); got.Cgroup != "" {
			t.Errorf("cgroup %d: got %q", none, got.Cgroup)
		}
	}
}

func TestUser(t *testing.T) {
	var r origin.Resolver
	for uid, want := range map[uint32]string{0: "root", 65534: "nobody", 3_999_999_999: ""} {
		for range 2 {
			if got := r.Details(flow.Process{UID: uid}).User; got != want {
				t.Errorf("user %d: got %q, want %q", uid, got, want)
			}
		}
	}
}

func BenchmarkDetails(b *testing.B) {
	var r origin.Resolver
	var exe syscall.Stat_t
	if err := syscall.Stat("/proc/self/exe", &exe); err != nil {
		b.Fatal(err)
	}
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		b.Fatal(err)
	}
	ticks, err := strconv.ParseInt(strings.Fields(string(stat[strings.LastIndex(string(stat), ")")+1:]))[19], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	p := flow.Process{PID: uint32(os.Getpid()), Start: time.Duration(ticks) * 10 * time.Millisecond, Inode: exe.Ino, Device: exe.Dev}
	if r.Details(p).Unverified {
		b.Fatal("it does not know itself")
	}
	for b.Loop() {
		r.Details(p)
	}
}
