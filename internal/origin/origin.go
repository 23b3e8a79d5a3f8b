//go:build linux

// Package origin finds out who a process is: the path of its program, its
// user, its systemd unit and its container. The kernel programs report only
// numbers, and the process may have ended since.
package origin

import (
	"os/user"
	"strconv"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/waybill-net/waybill/internal/flow"
)

// Resolver remembers what it found out, so that it can still say it of
// processes that have ended. The zero value is ready. Its methods may be
// called concurrently. It must run in the host's pid namespace.
type Resolver struct {
	once        sync.Once
	processes   *lru.Cache[process, living]
	executables *lru.Cache[file, string]
	cgroups     *lru.Cache[uint64, string]
	users       *lru.Cache[uint32, userName]
}

// file names an executable as the kernel does.
type file struct{ device, inode uint64 }

// process names a process as long as it runs one program.
type process struct {
	pid   uint32
	start time.Duration
	file  file
}

// userName may be empty: not every number has a name. Names change, and so
// are not believed for ever.
type userName struct {
	name string
	read time.Time
}

const (
	remembered  = 4096 // of each kind
	userNameAge = time.Minute
)

func (r *Resolver) prepare() {
	r.processes = cache[process, living]()
	r.executables = cache[file, string]()
	r.cgroups = cache[uint64, string]()
	r.users = cache[uint32, userName]()
}

func cache[K comparable, V any]() *lru.Cache[K, V] {
	c, err := lru.New[K, V](remembered)
	if err != nil {
		panic(err) // it refuses only sizes that are not positive
	}
	return c
}

// Details says what can be found out about a process.
func (r *Resolver) Details(p flow.Process) flow.Details {
	r.once.Do(r.prepare)
	d := flow.Details{Args: p.Args, User: r.user(p.UID), Cgroup: r.cgroup(p.CgroupID)}
	d.Unit, d.Container = unit(d.Cgroup), container(d.Cgroup)

	id := file{p.Device, p.Inode}
	if alive, ok := r.alive(p, id); ok {
		d.Executable = alive.executable
		if len(d.Args) == 0 {
			d.Args = alive.args
		}
		return d
	}
	if known, ok := r.executables.Get(id); ok {
		d.Executable = known
		return d
	}
	d.Unverified = true
	if d.Executable = p.Comm; len(p.Args) > 0 && p.Args[0] != "" {
		d.Executable = p.Args[0]
	}
	return d
}

// alive is what was seen of the process while it lived: now, or earlier.
func (r *Resolver) alive(p flow.Process, id file) (living, bool) {
	key := process{p.PID, p.Start, id}
	if known, ok := r.processes.Get(key); ok {
		return known, true
	}
	now, err := inspect(p)
	if err != nil {
		return living{}, false
	}
	r.processes.Add(key, now)
	r.executables.Add(id, now.executable)
	return now, true
}

func (r *Resolver) user(uid uint32) string {
	if known, ok := r.users.Get(uid); ok && time.Since(known.read) < userNameAge {
		return known.name
	}
	now := userName{read: time.Now()}
	if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
		now.name = u.Username
	}
	r.users.Add(uid, now)
	return now.name
}

// cgroup is the path of a cgroup. Ids are never used again, so a path that was
// right once is right for ever.
func (r *Resolver) cgroup(id uint64) string {
	if id == 0 {
		return ""
	}
	if known, ok := r.cgroups.Get(id); ok {
		return known
	}
	found, err := cgroupPath(id)
	if err != nil {
		return ""
	}
	r.cgroups.Add(id, found)
	return found
}
