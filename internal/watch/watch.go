//go:build linux

// Package watch notices when what a policy names comes, goes or is replaced:
// executables by an upgrade, cgroups by the restart of a unit.
package watch

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Watcher watches over paths. Its zero value is not ready: see [New].
type Watcher struct {
	inotify *fsnotify.Watcher
	changed chan struct{} // the paths are others
	paths   func() []string
	watched map[string]fs.FileInfo // by name, the directories that are
}

const (
	// An upgrade or the start of a unit is a burst of events.
	settle = 20 * time.Millisecond
	// What inotify does not tell: a full queue, a path behind a mount.
	interval = 30 * time.Second
)

// New makes a watcher of the paths that the function returns at the time.
func New(paths func() []string) (*Watcher, error) {
	inotify, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch paths: %w", err)
	}
	return &Watcher{inotify: inotify, changed: make(chan struct{}, 1), paths: paths, watched: make(map[string]fs.FileInfo)}, nil
}

// Changed tells the watcher that the paths are others now.
func (w *Watcher) Changed() {
	select {
	case w.changed <- struct{}{}:
	default: // it is going to look anyway
	}
}

// Run calls look at the start, whenever something may have happened to one of
// the paths, and every 30 s. It returns when ctx ends.
func (w *Watcher) Run(ctx context.Context, look func()) {
	defer w.inotify.Close()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		// First watch, then look: nothing happens unseen in between.
		w.watch()
		look()
		select {
		case <-ctx.Done():
			return
		case <-w.changed:
		case <-ticker.C:
		case <-w.inotify.Events:
			w.drain(ctx)
		case <-w.inotify.Errors: // the queue was full: look
		}
	}
}

// drain takes the events of a burst together.
func (w *Watcher) drain(ctx context.Context) {
	timer := time.NewTimer(settle)
	defer timer.Stop()
	for {
		select {
		case <-w.inotify.Events:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// watch watches the directories that tell of the paths. One that can not be
// watched is looked at with the ticker.
func (w *Watcher) watch() {
	want := directories(w.paths())
	list := w.inotify.WatchList()
	for dir := range w.watched {
		// One that was moved away is let go, by its name: perhaps after another had taken that.
		if !slices.Contains(list, dir) {
			delete(w.watched, dir)
		}
	}
	for _, dir := range list {
		// A watch is of an inode: another directory of the same name needs another.
		if st, err := os.Stat(dir); err != nil || !slices.Contains(want, dir) || !os.SameFile(st, w.watched[dir]) {
			w.inotify.Remove(dir) // an error means that the directory is gone
			delete(w.watched, dir)
		}
	}
	for _, dir := range want {
		if w.watched[dir] != nil {
			continue
		}
		if st, err := os.Stat(dir); err == nil && w.inotify.Add(dir) == nil {
			w.watched[dir] = st
		}
	}
}

// maxLinks bounds the symbolic links that are followed, as the kernel does.
const maxLinks = 40

// directories lists the existing directories on the way to each path, and to
// what symbolic links on that way lead to: there it comes, goes and is
// replaced.
func directories(paths []string) []string {
	dirs := make(map[string]bool)
	for _, path := range paths {
		links := maxLinks
		follow(filepath.Clean(path), dirs, &links)
	}
	return slices.Sorted(maps.Keys(dirs))
}

func follow(path string, dirs map[string]bool, links *int) {
	at := "/"
	for _, name := range strings.Split(strings.Trim(path, "/"), "/") {
		dirs[at] = true
		next := filepath.Join(at, name)
		st, err := os.Lstat(next)
		if err != nil {
			return // it will come to be seen in at
		}
		if st.Mode()&fs.ModeSymlink != 0 {
			if *links--; *links < 0 {
				return
			}
			target, err := os.Readlink(next)
			if err != nil {
				return
			}
			if !filepath.IsAbs(target) {
				target = filepath.Join(at, target)
			}
			follow(target, dirs, links)
			if next, err = filepath.EvalSymlinks(next); err != nil {
				return
			}
		} else if !st.IsDir() {
			return
		}
		at = next
	}
}
