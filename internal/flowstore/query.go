package flowstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/waybill-net/waybill/internal/flow"
)

// ErrNotFound says that a flow is not in the store, or not any more.
var ErrNotFound = errors.New("no such flow")

// Query selects flows. The zero value selects all.
type Query struct {
	Since, Until time.Time // it started then or later, and before
	UID          *uint32   // of the application
	ID           *flow.ID
	Program      string // path or name of the application's executable
	Provider     string // that redirected, forbade or refused one of its connections
	Limit        int    // 0: none
}

// where is the query in SQL: what follows WHERE, and its arguments.
func (q Query) where() (string, []any) {
	conditions := []string{"true"}
	var args []any
	add := func(condition string, with ...any) {
		conditions = append(conditions, condition)
		args = append(args, with...)
	}
	if !q.Since.IsZero() {
		add("started >= ?", q.Since.UnixNano())
	}
	if !q.Until.IsZero() {
		add("started < ?", q.Until.UnixNano())
	}
	if q.UID != nil {
		add("uid = ?", *q.UID)
	}
	if q.ID != nil {
		add("id = ?", q.ID.String())
	}
	if q.Program != "" {
		add("(program = ? OR executable = ?)", q.Program, q.Program)
	}
	if q.Provider != "" {
		add("EXISTS (SELECT 1 FROM hops WHERE flow = id AND provider = ?)", q.Provider)
	}
	return strings.Join(conditions, " AND "), args
}

// Flows returns the flows that the query selects, newest first.
func (s *Store) Flows(ctx context.Context, q Query) ([]flow.Flow, error) {
	where, args := q.where()
	limit := q.Limit
	if limit <= 0 {
		limit = -1
	}
	// All of an answer is as it was at one moment.
	tx, err := s.readers.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("read flows: %w", err)
	}
	defer tx.Rollback()
	flows, err := read(ctx, tx, "SELECT "+flowNames+" FROM flows WHERE "+where+" ORDER BY started DESC, id LIMIT ?", append(args, limit)...)
	if err != nil {
		return nil, fmt.Errorf("read flows: %w", err)
	}
	return flows, nil
}

// Flow returns one flow, or an error that is [ErrNotFound].
func (s *Store) Flow(ctx context.Context, id flow.ID) (*flow.Flow, error) {
	flows, err := s.Flows(ctx, Query{ID: &id})
	if err != nil {
		return nil, err
	}
	if len(flows) == 0 {
		return nil, fmt.Errorf("read flow %s: %w", id, ErrNotFound)
	}
	return &flows[0], nil
}

var (
	flowNames = names(flowColumns(new(flow.Flow)))
	hopNames  = names(hopColumns(new(flow.ID), new(flow.Hop)))
	skipNames = names(skipColumns(new(flow.ID), new(int), new(int), new(flow.Skip)))
	linkNames = names(linkColumns(new(flow.ID), new(int), new(flow.ID)))
)

// readAtOnce bounds the lists of ids in statements.
const readAtOnce = 1000

// querier is a transaction of a reader, or the connection that writes.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// read reads the flows that a statement selects from the table of that name,
// and then their hops.
func read(ctx context.Context, from querier, statement string, args ...any) ([]flow.Flow, error) {
	var flows []flow.Flow
	err := each(ctx, from, statement, args, func(rows *sql.Rows) error {
		var f flow.Flow
		err := rows.Scan(values(flowColumns(&f))...)
		flows = append(flows, f)
		return err
	})
	if err != nil {
		return nil, err
	}
	for chunk := range slices.Chunk(flows, readAtOnce) {
		if err := readHops(ctx, from, chunk); err != nil {
			return nil, err
		}
	}
	return flows, nil
}

// readHops completes flows.
func readHops(ctx context.Context, from querier, flows []flow.Flow) error {
	ids := make([]flow.ID, len(flows))
	byID := make(map[flow.ID]*flow.Flow, len(flows))
	for i := range flows {
		ids[i], byID[flows[i].ID] = flows[i].ID, &flows[i]
	}
	err := each(ctx, from, "SELECT "+hopNames+" FROM hops WHERE flow IN (SELECT value FROM json_each(?)) ORDER BY flow, n", []any{idList(ids)},
		func(rows *sql.Rows) error {
			var (
				id flow.ID
				h  flow.Hop
			)
			err := rows.Scan(values(hopColumns(&id, &h))...)
			if f := byID[id]; f != nil {
				f.Hops = append(f.Hops, h)
			}
			return err
		})
	if err != nil {
		return err
	}
	for i := range flows {
		if len(flows[i].Hops) > 0 {
			flows[i].Conclude()
		}
	}
	if err := readLinks(ctx, from, ids, byID); err != nil {
		return err
	}
	return readSkips(ctx, from, ids, byID)
}

func readLinks(ctx context.Context, from querier, ids []flow.ID, flows map[flow.ID]*flow.Flow) error {
	return each(ctx, from, "SELECT "+linkNames+" FROM links WHERE flow IN (SELECT value FROM json_each(?)) ORDER BY flow, n", []any{idList(ids)},
		func(rows *sql.Rows) error {
			var (
				id, earlier flow.ID
				n           int
			)
			err := rows.Scan(values(linkColumns(&id, &n, &earlier))...)
			if f := flows[id]; f != nil {
				f.Links = append(f.Links, earlier)
			}
			return err
		})
}

func readSkips(ctx context.Context, from querier, ids []flow.ID, flows map[flow.ID]*flow.Flow) error {
	return each(ctx, from, "SELECT "+skipNames+" FROM skips WHERE flow IN (SELECT value FROM json_each(?)) ORDER BY flow, hop, n", []any{idList(ids)},
		func(rows *sql.Rows) error {
			var (
				id     flow.ID
				hop, n int
				skip   flow.Skip
			)
			err := rows.Scan(values(skipColumns(&id, &hop, &n, &skip))...)
			if f := flows[id]; f != nil && f.Hop(hop) != nil {
				h := f.Hop(hop)
				h.Skipped = append(h.Skipped, skip)
			}
			return err
		})
}

// each calls do for every row.
func each(ctx context.Context, from querier, statement string, args []any, do func(*sql.Rows) error) error {
	rows, err := from.QueryContext(ctx, statement, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := do(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// idList is a JSON array, which one parameter of a statement can hold.
func idList(ids []flow.ID) string {
	b, err := json.Marshal(ids)
	if err != nil {
		panic(err) // no ID is without a text
	}
	return string(b)
}
