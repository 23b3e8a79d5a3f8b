package flowstore

import (
	"context"
	"database/sql"
	"errors"
	"slices"

	"github.com/waybill-net/waybill/internal/flow"
)

// writer is the one connection that writes, with its statements prepared.
type writer struct {
	db   *sql.DB
	conn *sql.Conn

	putFlow, putHop, putSkip, dropSkips, putLink *sql.Stmt
}

func openWriter(path string) (*writer, error) {
	if err := createFile(path); err != nil {
		return nil, err
	}
	db, err := connect(path, writing)
	if err != nil {
		return nil, err
	}
	w := &writer{db: db}
	ctx := context.Background()
	if w.conn, err = db.Conn(ctx); err == nil {
		err = prepareFile(ctx, w.conn)
	}
	if err == nil {
		err = w.prepare(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *writer) prepare(ctx context.Context) error {
	var (
		f   flow.Flow
		h   flow.Hop
		n   int
		s   flow.Skip
		err error
	)
	for query, stmt := range map[string]**sql.Stmt{
		upsert("flows", "id", append(flowColumns(&f), derivedColumns(&f)...)): &w.putFlow,
		upsert("hops", "flow, n", hopColumns(&f.ID, &h)):                      &w.putHop,
		upsert("skips", "flow, hop, n", skipColumns(&f.ID, &n, &n, &s)):       &w.putSkip,
		upsert("links", "flow, n", linkColumns(&f.ID, &n, &f.ID)):             &w.putLink,
		"DELETE FROM skips WHERE flow = ? AND hop = ?":                        &w.dropSkips,
	} {
		if *stmt, err = w.conn.PrepareContext(ctx, query); err != nil {
			return err
		}
	}
	return nil
}

// close ends the statements with their connection. A second time it does
// nothing.
func (w *writer) close() error {
	var err error
	if w.conn != nil {
		err = w.conn.Close()
	}
	if errors.Is(err, sql.ErrConnDone) {
		err = nil
	}
	return errors.Join(err, w.db.Close())
}

// write writes what changed in one transaction.
func (w *writer) write(ctx context.Context, b *batch) error {
	return w.transaction(ctx, func() error {
		for id, hops := range b.hops {
			if err := w.writeFlow(ctx, b.flows[id], hops); err != nil {
				return err
			}
		}
		return nil
	})
}

// transaction commits what do does, or undoes it. It is not one of
// database/sql, which would prepare each statement again.
func (w *writer) transaction(ctx context.Context, do func() error) error {
	if _, err := w.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	err := do()
	if err == nil {
		_, err = w.conn.ExecContext(ctx, "COMMIT")
	}
	if err != nil {
		// After some errors SQLite has rolled back by itself; that there is
		// then nothing to roll back is no news.
		w.conn.ExecContext(ctx, "ROLLBACK")
	}
	return err
}

func (w *writer) writeFlow(ctx context.Context, f *flow.Flow, hops []int) error {
	columns := append(flowColumns(f), derivedColumns(f)...)
	if _, err := w.putFlow.ExecContext(ctx, values(columns)...); err != nil {
		return err
	}
	slices.Sort(hops)
	for _, n := range slices.Compact(hops) {
		if err := w.writeHop(ctx, f.ID, f.Hop(n)); err != nil {
			return err
		}
	}
	for n := range f.Links {
		if _, err := w.putLink.ExecContext(ctx, values(linkColumns(&f.ID, &n, &f.Links[n]))...); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) writeHop(ctx context.Context, id flow.ID, h *flow.Hop) error {
	if _, err := w.putHop.ExecContext(ctx, values(hopColumns(&id, h))...); err != nil {
		return err
	}
	// A newer try may have skipped fewer.
	if _, err := w.dropSkips.ExecContext(ctx, id.String(), h.N); err != nil {
		return err
	}
	for n := range h.Skipped {
		if _, err := w.putSkip.ExecContext(ctx, values(skipColumns(&id, &h.N, &n, &h.Skipped[n]))...); err != nil {
			return err
		}
	}
	return nil
}
