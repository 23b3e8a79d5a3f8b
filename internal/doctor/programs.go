//go:build linux

package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/waybill-net/waybill/internal/engine"
)

// maxCgroups bounds the walk below the scope.
const maxCgroups = 4096

// programs looks at the hooks of the scope, of every cgroup above it and of
// those below it. A socket meets the programs of its own cgroup first and
// those of the root last.
func (x *examination) programs() []Finding {
	if x.scope == "" {
		return nil
	}
	dirs, all := x.relatives()
	var findings []Finding
	if !all {
		findings = append(findings, Finding{
			Level: Info, Subject: fmt.Sprintf("only the first %d cgroups below %s were examined", maxCgroups, x.scope),
			Remedy: "examine a part of them with --scope",
		})
	}
	for _, dir := range dirs {
		attached, err := engine.AttachedTo(dir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			continue // removed meanwhile
		}
		if err != nil {
			return append(findings, unseen("programs on "+dir, err))
		}
		x.attached = append(x.attached, attached...)
	}
	pins := findPins()
	for _, a := range x.attached {
		findings = append(findings, x.describeProgram(a, pins[a.ID]))
	}
	findings = append(findings, x.nested()...)
	if len(findings) == 0 {
		return []Finding{{Level: OK, Subject: "nobody else on the hooks of " + x.scope + ", above it or below it"}}
	}
	return findings
}

// relatives lists the scope, the cgroups above it, nearest first, and those
// below it. It tells whether these are all.
func (x *examination) relatives() (dirs []string, all bool) {
	for dir := x.scope; ; dir = filepath.Dir(dir) {
		dirs = append(dirs, dir)
		if dir == x.root || !strings.HasPrefix(dir, x.root+"/") {
			break
		}
	}
	all = true
	below := 0
	// Errors are those of cgroups that are removed while we look.
	filepath.WalkDir(x.scope, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() || path == x.scope {
			return nil
		}
		if below++; below > maxCgroups || x.ctx.Err() != nil {
			all = false
			return fs.SkipAll
		}
		dirs = append(dirs, path)
		return nil
	})
	return dirs, all
}

// findPins reads every bpf file system. Paths are a courtesy: what can not be
// read is left out.
func findPins() map[uint32]string {
	pins := make(map[uint32]string)
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("bpf"))
	if err != nil {
		return pins
	}
	for _, m := range mounts {
		found, _ := engine.PinnedPrograms(m.Mountpoint)
		for id, path := range found {
			pins[id] = path
		}
	}
	return pins
}

func (x *examination) describeProgram(a engine.Attached, pin string) Finding {
	f := Finding{
		Level:   Info,
		Subject: fmt.Sprintf("%s of %s: %s", a.Hook, a.Cgroup, programName(a)),
		Meaning: x.provenance(a, pin),
	}
	if isWaybill(a) {
		f.Subject += ", waybill's own"
		return f
	}
	if product := productOf(a); product != "" {
		f.Subject += ", of " + product
	}
	if x.stands(a, &f) {
		return f
	}
	e := effectOf(a.Hook)
	f.Level = e.level
	f.Meaning = sentences(x.position(a), e.meaning, f.Meaning)
	f.Remedy = e.remedy
	return f
}

func isWaybill(a engine.Attached) bool { return strings.HasPrefix(a.Name, "wb_") }

func programName(a engine.Attached) string {
	if a.Name == "" {
		return fmt.Sprintf("program %d", a.ID)
	}
	return fmt.Sprintf("program %s (id %d)", a.Name, a.ID)
}

// stands tells whether the program stands in the way of attaching waybill's,
// or waybill's in its way.
func (x *examination) stands(a engine.Attached, f *Finding) bool {
	detach := fmt.Sprintf("have its owner attach it with BPF_F_ALLOW_MULTI or by a link; or end it: bpftool cgroup detach %s %s id %d",
		a.Cgroup, a.Hook, a.ID)
	switch {
	case a.Mode == engine.Shared || x.isBelow(a.Cgroup):
		// One below runs first, and ours after it: the flag is about
		// cgroups further down.
		return false
	case a.Cgroup == x.scope:
		f.Level, f.Remedy = Problem, detach
		f.Meaning = sentences(fmt.Sprintf("It is attached as the only one (%s): waybill can not attach to this cgroup.", a.Mode), f.Meaning)
	case !x.nearest(a):
		return false
	case a.Mode == engine.Exclusive:
		f.Level, f.Remedy = Problem, detach
		f.Meaning = sentences("It is attached as the only one for its cgroup and all below it: waybill can not attach to "+x.scope+".", f.Meaning)
	default:
		f.Level, f.Remedy = Warning, detach
		f.Meaning = sentences("It allows to be overridden: once waybill attaches to "+x.scope+", it no longer runs for sockets there.", f.Meaning)
	}
	return true
}

// nearest: of the cgroups above the scope that have a program on a hook, the
// kernel asks only the nearest whether one may attach below.
func (x *examination) nearest(a engine.Attached) bool {
	i := slices.IndexFunc(x.attached, func(b engine.Attached) bool {
		return b.Hook == a.Hook && b.Cgroup != x.scope && !x.isBelow(b.Cgroup)
	})
	return i < 0 || x.attached[i].Cgroup == a.Cgroup
}

func (x *examination) isBelow(dir string) bool { return strings.HasPrefix(dir, x.scope+"/") }

// position says when the program runs. Its effect depends on that.
func (x *examination) position(a engine.Attached) string {
	switch {
	case a.Cgroup == x.scope:
		return "It runs beside waybill's, in the order of attaching."
	case x.isBelow(a.Cgroup):
		return "It runs before waybill's, for the sockets of its cgroup."
	}
	return "It runs after waybill's."
}

type effect struct {
	level           Level
	meaning, remedy string
}

func effectOf(hook string) effect {
	const leave = "if this is not wanted, end it, or give waybill a scope that it does not cover"
	switch hook {
	case "connect4", "connect6":
		return effect{
			Warning, "It may rewrite or refuse connections: whoever runs second sees the address that the first one wrote.",
			"if it redirects to a proxy, make that proxy a provider and end this program; " + leave,
		}
	case "sockops":
		return effect{
			Warning, "If it sets a socket's callback flags without keeping those of others, connections that fail stay in waybill's " +
				"in-flight map, which has a limit.",
			leave,
		}
	case "getsockopt", "setsockopt":
		return effect{Warning, "It may change or refuse the options with which proxies read and set records, and SO_ORIGINAL_DST.", leave}
	case "sendmsg4", "sendmsg6", "recvmsg4", "recvmsg6":
		return effect{
			Warning, "It may rewrite or refuse datagrams: by their addresses waybill knows the flows of UDP.",
			"if it redirects to a proxy, make that proxy a provider and end this program; " + leave,
		}
	case "getpeername4", "getpeername6", "getsockname4", "getsockname6":
		return effect{Info, "It may change which address of a connection an application sees.", ""}
	case "bind4", "bind6":
		return effect{Info, "It may change or refuse the addresses that sockets are bound to.", ""}
	}
	return effect{Info, "It hears of sockets that are closed.", ""}
}

// provenance says who loaded the program, when, and who keeps it.
func (x *examination) provenance(a engine.Attached, pin string) string {
	var known []string
	if a.Name != "" {
		known = append(known, fmt.Sprintf("loaded by %s at %s", userName(a.UID), sinceBoot(a.Loaded)))
	}
	if holders := x.processes.ofProgram[a.ID]; len(holders) > 0 {
		known = append(known, "held by "+list(holders))
	} else if x.processes.hidden == 0 && pin == "" {
		known = append(known, "held by no process")
	}
	if pin != "" {
		known = append(known, "pinned at "+pin)
	}
	if len(known) == 0 {
		return ""
	}
	s := strings.Join(known, ", ") + "."
	return strings.ToUpper(s[:1]) + s[1:]
}

func userName(uid uint32) string {
	if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
		return u.Username
	}
	return fmt.Sprintf("user %d", uid)
}

func sinceBoot(d time.Duration) string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return d.String() + " after boot"
	}
	return time.Now().Add(d - time.Duration(now.Nano())).Format(time.DateTime)
}

// nested finds two waybills one below the other: each redirects, and neither
// knows the other's records.
func (x *examination) nested() []Finding {
	var scopes []string
	for _, a := range x.attached {
		if isWaybill(a) && a.Hook == "connect4" {
			scopes = append(scopes, a.Cgroup)
		}
	}
	for i, a := range scopes {
		for _, b := range scopes[i+1:] {
			if a == b || strings.HasPrefix(a, b+"/") || strings.HasPrefix(b, a+"/") {
				return []Finding{{
					Level: Warning, Subject: fmt.Sprintf("waybill runs twice for one socket: on %s and on %s", a, b),
					Meaning: "Each redirects, neither knows the other's records, and their proxies can form a loop.",
					Remedy:  "end one of them and put all providers into one policy",
				}}
			}
		}
	}
	return nil
}

func sentences(s ...string) string {
	return strings.Join(slices.DeleteFunc(s, func(s string) bool { return s == "" }), " ")
}
