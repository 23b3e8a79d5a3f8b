//go:build linux

// Package identity finds the numbers by which the kernel knows what a policy
// names: executables, users and cgroups.
package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/waybill-net/waybill/internal/cgroup"
	"github.com/waybill-net/waybill/internal/policy"
)

// Resolve looks up everything that p names. What does not exist, or can not be
// looked at, is left out: the owner of one path must not be able to hold up
// the whole policy. What can never be one of the kind, such as a cgroup outside
// the cgroup v2 file system, is an error.
func Resolve(p policy.Policy) (policy.Identities, error) {
	ids := policy.Identities{
		Programs: make(map[string]policy.FileID),
		Users:    make(map[string]uint32),
		Cgroups:  make(map[string]policy.CgroupID),
	}
	var errs []error
	for _, path := range Programs(p) {
		if id, err := Program(path); err == nil {
			ids.Programs[path] = id
		}
	}
	for _, name := range users(p) {
		errs = append(errs, put(ids.Users, name, User))
	}
	for _, dir := range Cgroups(p) {
		errs = append(errs, put(ids.Cgroups, dir, identifyCgroup))
	}
	return ids, errors.Join(errs...)
}

func put[ID any](ids map[string]ID, name string, find func(string) (ID, error)) error {
	id, err := find(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		ids[name] = id
	}
	return err
}

// Program identifies the executable at path. A script is never one: its
// interpreter is what connects.
func Program(path string) (policy.FileID, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return policy.FileID{}, fmt.Errorf("identify program %s: %w", path, err)
	}
	// stat packs the number in its own way; this is the kernel's.
	device := uint64(unix.Major(st.Dev))<<20 | uint64(unix.Minor(st.Dev))
	return policy.FileID{Device: device, Inode: st.Ino}, nil
}

// User gives the number of a user, who may be named by it already.
func User(name string) (uint32, error) {
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(n), nil
	}
	u, err := user.Lookup(name)
	if errors.As(err, new(user.UnknownUserError)) {
		return 0, fmt.Errorf("identify user %q: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		return 0, fmt.Errorf("identify user %q: %w", name, err)
	}
	n, err := strconv.ParseUint(u.Uid, 10, 32)
	return uint32(n), err
}

func identifyCgroup(dir string) (policy.CgroupID, error) {
	id, err := cgroup.Identify(dir)
	return policy.CgroupID{ID: id.ID, Level: id.Level}, err
}

// Programs lists the paths of all executables that p names.
func Programs(p policy.Policy) []string {
	return collect(p, func(f policy.Filter) []string { return slices.Concat(f.Programs, f.OriginalPrograms) })
}

// Cgroups lists the directories of all cgroups that p names.
func Cgroups(p policy.Policy) []string {
	dirs := collect(p, func(f policy.Filter) []string { return slices.Concat(f.Cgroups, f.OriginalCgroups) })
	for _, provider := range p.Providers {
		if provider.Cgroup != "" {
			dirs = append(dirs, provider.Cgroup)
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

func users(p policy.Policy) []string {
	return collect(p, func(f policy.Filter) []string { return f.Users })
}

func collect(p policy.Policy, names func(policy.Filter) []string) []string {
	var all []string
	for _, f := range p.Filters {
		all = append(all, names(f)...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
