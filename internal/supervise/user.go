//go:build linux

package supervise

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// User is whom a program runs as, with all its groups.
type User struct {
	Name   string
	Home   string
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary
}

// LookupUser finds a user by name or number. A number without an entry in the
// user database needs a group, as in "1234:1234".
func LookupUser(spec string) (*User, error) {
	name, group, hasGroup := strings.Cut(spec, ":")
	u, err := lookup(name)
	if err != nil && hasGroup {
		u, err = numeric(name, group)
	}
	if err != nil {
		return nil, fmt.Errorf("look up user %q: %w", spec, err)
	}
	if hasGroup {
		if u.GID, err = lookupGroup(group); err != nil {
			return nil, fmt.Errorf("look up user %q: %w", spec, err)
		}
	}
	return u, nil
}

func lookup(name string) (*User, error) {
	entry, err := user.Lookup(name)
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) {
		if _, nerr := strconv.ParseUint(name, 10, 32); nerr != nil {
			return nil, errors.New("no such user")
		}
		if entry, err = user.LookupId(name); err != nil {
			return nil, errors.New("no such user; give its group too, as UID:GID")
		}
	}
	if err != nil {
		return nil, err
	}
	groups, err := entry.GroupIds()
	if err != nil {
		return nil, err
	}
	return fromDatabase(entry, groups)
}

func fromDatabase(entry *user.User, groups []string) (*User, error) {
	ids := make([]uint32, 2+len(groups))
	for i, s := range append([]string{entry.Uid, entry.Gid}, groups...) {
		id, err := parseID(s)
		if err != nil {
			return nil, err
		}
		ids[i] = id
	}
	return &User{Name: entry.Username, Home: entry.HomeDir, UID: ids[0], GID: ids[1], Groups: ids[2:]}, nil
}

func numeric(name, group string) (*User, error) {
	uid, err := parseID(name)
	if err != nil {
		return nil, errors.New("no such user")
	}
	gid, err := lookupGroup(group)
	if err != nil {
		return nil, err
	}
	return &User{Name: name, Home: "/", UID: uid, GID: gid}, nil
}

func lookupGroup(name string) (uint32, error) {
	if g, err := user.LookupGroup(name); err == nil {
		return parseID(g.Gid)
	}
	gid, err := parseID(name)
	if err != nil {
		return 0, fmt.Errorf("no such group %q", name)
	}
	return gid, nil
}

func parseID(s string) (uint32, error) {
	id, err := strconv.ParseUint(s, 10, 32)
	return uint32(id), err
}

// Credential is the user as the start of a process needs it.
func (u *User) Credential() *syscall.Credential {
	return &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
}

// Environ returns env with what login would set for this user.
func (u *User) Environ(env []string) []string {
	return append(env[:len(env):len(env)], "HOME="+u.Home, "USER="+u.Name, "LOGNAME="+u.Name)
}
