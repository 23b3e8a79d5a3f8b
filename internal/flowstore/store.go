// Package flowstore keeps flows in a SQLite file, so that a person can ask
// about them in SQL, also with other programs than waybill. docs/flows.md
// describes the tables.
package flowstore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/waybill-net/waybill/internal/flow"
)

// Options of [Open].
type Options struct {
	Path string

	// What Prune leaves.
	MaxAge   time.Duration // 0 is 7 days
	MaxBytes int64         // of the file; 0 is 256 MiB

	// Details finds out about the application of each new flow. It is called
	// from Add, while the application probably still lives.
	Details func(flow.Process) flow.Details
}

// Store is an open file of flows. Its methods may be called concurrently.
type Store struct {
	opts    Options
	warning error
	readers *sql.DB

	mu       sync.Mutex // one writes at a time
	writer   *writer
	recent   *lru.Cache[flow.ID, *flow.Flow] // as they stand in the file
	unpruned int                             // events since the last Prune
}

// recentFlows is how many flows are kept in memory, to be added to without
// reading them first. One takes about 2 kB.
const recentFlows = 8192

// Open opens the file or makes it. A corrupt file is moved aside, and
// [Store.Warning] says so. A file of a newer waybill and one that is not a
// flow store at all are left alone, and are errors.
func Open(opts Options) (*Store, error) {
	opts.MaxAge = cmp.Or(opts.MaxAge, 7*24*time.Hour)
	opts.MaxBytes = cmp.Or(opts.MaxBytes, 256<<20)
	path, err := filepath.Abs(opts.Path)
	if opts.Path == "" {
		err = errors.New("it has no path")
	}
	if err != nil {
		return nil, fmt.Errorf("open flow store: %w", err)
	}
	opts.Path = path

	s := &Store{opts: opts}
	if s.recent, err = lru.New[flow.ID, *flow.Flow](recentFlows); err != nil {
		return nil, err
	}
	if s.writer, s.warning, err = openOrReplace(path); err != nil {
		return nil, fmt.Errorf("open flow store %s: %w", path, err)
	}
	if s.readers, err = connect(path, reading); err != nil {
		return nil, errors.Join(err, s.writer.close())
	}
	s.readers.SetMaxOpenConns(maxReaders)
	return s, nil
}

// maxReaders bounds the memory that queries take: each connection has a page
// cache.
const maxReaders = 4

// Warning says that [Open] has moved a corrupt file aside, and where. It is
// nil if nothing happened.
func (s *Store) Warning() error { return s.warning }

// Close waits for an Add or Prune to end and closes the file.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// The last connection to close moves the log into the file and removes it.
	return errors.Join(s.readers.Close(), s.writer.close())
}

// unlimited takes the cancellation away from ctx, after a last look: what
// follows is short, and database/sql would start a goroutine for each of its
// statements.
func unlimited(ctx context.Context) (context.Context, error) {
	return context.WithoutCancel(ctx), ctx.Err()
}
