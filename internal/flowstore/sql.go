package flowstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// ErrReadOnly says that a statement given to [Store.SQL] would have written.
var ErrReadOnly = errors.New("only reading is allowed")

const (
	maxRows  = 100_000 // of an answer
	maxValue = 1 << 20 // bytes of one of its values
)

// SQL answers a query. It can not write, nor open other files, and ends when
// ctx does. The values are nil, int64, float64, string or []byte.
func (s *Store) SQL(ctx context.Context, query string) (columns []string, rows [][]any, err error) {
	columns, rows, err = s.ask(ctx, query)
	var e *sqlite.Error
	switch {
	case err == nil:
		return columns, rows, nil
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_READONLY:
		err = fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	return nil, nil, fmt.Errorf("ask flow store: %w", err)
}

// ask uses a connection for this one query: it could change the settings of
// its connection.
func (s *Store) ask(ctx context.Context, query string) (columns []string, answer [][]any, err error) {
	db, err := connect(s.opts.Path, reading)
	if err != nil {
		return nil, nil, err
	}
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	for limit, value := range map[int]int{sqlite3.SQLITE_LIMIT_ATTACHED: 0, sqlite3.SQLITE_LIMIT_LENGTH: maxValue} {
		if _, err := sqlite.Limit(conn, limit, value); err != nil {
			return nil, nil, err
		}
	}
	rows, err := conn.QueryContext(ctx, query)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	return collect(rows)
}

func collect(rows *sql.Rows) (columns []string, answer [][]any, err error) {
	if columns, err = rows.Columns(); err != nil {
		return nil, nil, err
	}
	for rows.Next() {
		if len(answer) == maxRows {
			return nil, nil, fmt.Errorf("the answer has more than %d rows; give it a LIMIT", maxRows)
		}
		row := make([]any, len(columns))
		to := make([]any, len(columns))
		for i := range row {
			to[i] = &row[i]
		}
		if err := rows.Scan(to...); err != nil {
			return nil, nil, err
		}
		answer = append(answer, row)
	}
	return columns, answer, rows.Err()
}
