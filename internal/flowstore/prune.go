package flowstore

import (
	"context"
	"fmt"
	"time"
)

// pruneAtOnce is how many flows are deleted in one transaction: readers see
// old flows go in steps, and the log stays small.
const pruneAtOnce = 1000

// Prune deletes the flows that started too long ago, and then the oldest until
// the rest is small enough. The file shrinks.
func (s *Store) Prune(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.prune(ctx)
}

func (s *Store) prune(ctx context.Context) error {
	s.unpruned = 0
	// Flows in memory may be among those that go.
	s.recent.Purge()
	if err := s.writer.prune(ctx, time.Now().Add(-s.opts.MaxAge), s.opts.MaxBytes); err != nil {
		return fmt.Errorf("prune flow store: %w", err)
	}
	return nil
}

func (w *writer) prune(ctx context.Context, oldest time.Time, maxBytes int64) error {
	for deleted := int64(pruneAtOnce); deleted == pruneAtOnce; {
		var err error
		if deleted, err = w.deleteOldest(ctx, "started < ?", oldest.UnixNano()); err != nil {
			return err
		}
	}
	for deleted := int64(1); deleted > 0; {
		used, err := w.used(ctx)
		if err != nil {
			return err
		}
		if used <= maxBytes {
			break
		}
		if deleted, err = w.deleteOldest(ctx, "true"); err != nil {
			return err
		}
	}
	return w.shrink(ctx)
}

func (w *writer) deleteOldest(ctx context.Context, condition string, args ...any) (deleted int64, err error) {
	result, err := w.conn.ExecContext(ctx,
		"DELETE FROM flows WHERE id IN (SELECT id FROM flows WHERE "+condition+" ORDER BY started LIMIT ?)",
		append(args, pruneAtOnce)...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// used is what the file would take without its free pages.
func (w *writer) used(ctx context.Context) (bytes int64, err error) {
	err = w.conn.QueryRowContext(ctx,
		"SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size").Scan(&bytes)
	return bytes, err
}

// shrink gives free pages and the log back to the file system.
func (w *writer) shrink(ctx context.Context) error {
	for _, pragma := range []string{"incremental_vacuum", "wal_checkpoint(truncate)"} {
		// The work of both is done as their rows are read.
		rows, err := w.conn.QueryContext(ctx, "PRAGMA "+pragma)
		if err != nil {
			return err
		}
		for rows.Next() {
		}
		if err := rows.Close(); err != nil {
			return err
		}
	}
	return nil
}
