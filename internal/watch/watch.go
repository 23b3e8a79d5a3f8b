// Package watch notices when what a policy names comes, goes or is replaced:
// executables by an upgrade, cgroups by the restart of a unit.
package watch

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Watcher watches over paths. Its zero value is not ready: see [New].
type Watcher struct {
	inotify *fsnotify.Watcher
	changed chan struct{} // the paths are others
	paths   func() []string
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
	return &Watcher{inotify: inotify, changed: make(chan struct{}, 1), paths: paths}, nil
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
	for _, dir := range w.inotify.WatchList() {
		if !slices.Contains(want, dir) {
			w.inotify.Remove(dir) // an error means that the directory is gone
		}
	}
	have := w.inotify.WatchList()
	for _, dir := range want {
		if !slices.Contains(have, dir) {
			w.inotify.Add(dir)
		}
	}
}

// directories lists, for each path and for what it links to, the deepest
// directory above it that exists: that is where it comes and goes.
func directories(paths []string) []string {
	var dirs []string
	for _, path := range paths {
		dirs = append(dirs, existing(filepath.Dir(path)))
		if target, err := filepath.EvalSymlinks(path); err == nil && target != path {
			dirs = append(dirs, existing(filepath.Dir(target)))
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

func existing(dir string) string {
	for {
		if st, err := os.Stat(dir); err == nil && st.IsDir() || dir == "/" || dir == "." {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}
