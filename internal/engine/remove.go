//go:build linux

package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/waybill-net/waybill/internal/cgroup"
)

// Remove detaches and deletes everything that is pinned in a state directory,
// of whatever version, and what a process that was killed while it made one
// has left. It wraps ErrNoState if there is nothing, and ErrInUse if a process
// has it open.
func Remove(dir string) error {
	pattern, _ := unfinished(dir)
	if err := sweep(pattern); err != nil {
		return err
	}
	s, err := openState(dir)
	if err != nil {
		return err
	}
	return errors.Join(s.remove(), s.close())
}

// remove begins with the hooks that redirect, and waits a moment for what
// they have sent on its way. First of all the state loses its name: should we be
// killed here, what is left is swept, not adopted.
func (s *state) remove() error {
	_, nameless := unfinished(s.dir)
	if err := os.Rename(s.dir, nameless); err != nil {
		return fmt.Errorf("remove state: %w", err)
	}
	s.dir = nameless
	links, err := filepath.Glob(s.linkPath("*"))
	if err != nil {
		return err
	}
	redirect, others := s.linkPath("connect*"), make([]string, 0, len(links))
	for _, path := range links {
		if redirects, _ := filepath.Match(redirect, path); !redirects {
			others = append(others, path)
		} else if err := detach(path); err != nil {
			return err
		}
	}
	if m, err := ebpf.LoadPinnedMap(s.mapPath(kernelMapInflight), nil); err == nil {
		drain(m)
		m.Close()
	}
	for _, path := range others {
		if err := detach(path); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("remove state: %w", err)
	}
	return nil
}

// detach ends a link at once. Its pin alone would end it some time after: the
// kernel frees pins after a grace period. A link whose cgroup is gone is
// detached already.
func detach(path string) error {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return fmt.Errorf("detach %s: %w", path, err)
	}
	defer l.Close()
	if err := l.Detach(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOLINK) {
		return fmt.Errorf("detach %s: %w", path, err)
	}
	return nil
}

// drain waits until no connection is in mid-handshake.
func drain(inflight *ebpf.Map) {
	key := make([]byte, inflight.KeySize())
	for deadline := time.Now().Add(drainTimeout); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if inflight.NextKey(nil, &key) != nil {
			return
		}
	}
}

// StateInfo describes a state directory.
type StateInfo struct {
	Dir     string
	Version string // that made it, or adopted it last
	Scope   string
	Alive   bool // its programs are attached to the cgroup that is at Scope now
}

// InspectState reads who made a state directory, without a lock: a daemon may
// have it open. It wraps ErrNoState if there is none.
func InspectState(dir string) (*StateInfo, error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("inspect state %s: %w", dir, ErrNoState)
	}
	meta, err := (&state{dir: dir}).readMeta()
	if err != nil {
		return nil, err
	}
	info := &StateInfo{Dir: dir, Version: getString(meta.Version[:]), Scope: getString(meta.Scope[:])}
	id, err := cgroup.Identify(info.Scope)
	info.Alive = err == nil && id.ID == meta.Cgroup
	return info, nil
}
