//go:build linux

package engine

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/pin"
	"golang.org/x/sys/unix"
)

// AttachMode says who else may attach to a hook of a cgroup. The first
// program that is attached to it decides.
type AttachMode string

const (
	Shared      AttachMode = "shared"      // any number of programs, here and below
	Overridable AttachMode = "overridable" // one here; one below takes its place there
	Exclusive   AttachMode = "exclusive"   // one here, and no more below
)

// Attached is a program of anybody's on a hook of a cgroup.
type Attached struct {
	Cgroup string // its directory
	Hook   string // as "connect4"
	Mode   AttachMode
	ID     uint32

	// What follows is zero if the caller may not look at programs, which
	// takes CAP_SYS_ADMIN.
	Name   string        // of which the kernel keeps 15 bytes
	UID    uint32        // of who loaded it
	Loaded time.Duration // since boot
}

// AttachedTo returns the programs that are attached to the cgroup at dir
// itself, on the hooks to which waybill attaches, too; each hook's in the order in which they run. It needs CAP_NET_ADMIN.
func AttachedTo(dir string) ([]Attached, error) {
	cgroup, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer cgroup.Close()
	var all []Attached
	for _, h := range hookNames {
		mode, n, err := queryHook(cgroup, h.attach)
		if err != nil {
			return nil, fmt.Errorf("list %s programs of %s: %w", h.name, dir, err)
		}
		if n == 0 {
			continue
		}
		ids, err := link.QueryPrograms(link.QueryOptions{Target: int(cgroup.Fd()), Attach: h.attach})
		if err != nil {
			return nil, fmt.Errorf("list %s programs of %s: %w", h.name, dir, err)
		}
		for _, p := range ids.Programs {
			a := Attached{Cgroup: dir, Hook: h.name, Mode: mode, ID: uint32(p.ID)}
			a.describe()
			all = append(all, a)
		}
	}
	return all, nil
}

// progQuery is the start of the kernel's union bpf_attr for BPF_PROG_QUERY.
type progQuery struct {
	target      uint32
	attachType  uint32
	queryFlags  uint32
	attachFlags uint32
	programs    uint64
	count       uint32
	_           uint32
}

// queryHook asks for the flags of attachment, which [link.QueryPrograms] does
// not return, and for the number of programs.
func queryHook(cgroup *os.File, attach ebpf.AttachType) (AttachMode, uint32, error) {
	q := progQuery{target: uint32(cgroup.Fd()), attachType: uint32(attach)}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_QUERY, uintptr(unsafe.Pointer(&q)), unsafe.Sizeof(q))
	runtime.KeepAlive(cgroup)
	if errno != 0 {
		return "", 0, errno
	}
	switch {
	case q.attachFlags&unix.BPF_F_ALLOW_MULTI != 0:
		return Shared, q.count, nil
	case q.attachFlags&unix.BPF_F_ALLOW_OVERRIDE != 0:
		return Overridable, q.count, nil
	}
	return Exclusive, q.count, nil
}

// describe fills in what the kernel knows of the program, if it tells us.
func (a *Attached) describe() {
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(a.ID))
	if err != nil {
		return
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return
	}
	a.Name = info.Name
	a.UID, _ = info.CreatedByUID()
	a.Loaded, _ = info.LoadTime()
}

// maxPins bounds the walk of PinnedPrograms: each file is opened, and large
// installations pin thousands of maps.
const maxPins = 4096

// PinnedPrograms returns the paths in the bpf file system at dir at which
// programs, or links that hold programs, are pinned, by the program's id.
func PinnedPrograms(dir string) (map[uint32]string, error) {
	paths := make(map[uint32]string)
	n := 0
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if n++; n > maxPins {
			return fs.SkipAll
		}
		object, err := pin.Load(path, nil)
		if errors.Is(err, fs.ErrPermission) {
			return err
		}
		if err != nil {
			return nil // unpinned meanwhile, or of a kind that holds no program
		}
		defer object.Close()
		if id, ok := programOf(object); ok {
			paths[id] = path
		}
		return nil
	})
	return paths, err
}

func programOf(object io.Closer) (uint32, bool) {
	switch o := object.(type) {
	case *ebpf.Program:
		if info, err := o.Info(); err == nil {
			id, ok := info.ID()
			return uint32(id), ok
		}
	case link.Link:
		if info, err := o.Info(); err == nil {
			return uint32(info.Program), true
		}
	}
	return 0, false
}
