package flowstore

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

const (
	// applicationID tells our files from other SQLite files: "wbfl".
	applicationID = 0x7762666c

	schemaVersion = 4
)

//go:embed schema.sql
var schema string

//go:embed migrate2.sql
var toVersion2 string

//go:embed migrate3.sql
var toVersion3 string

//go:embed migrate4.sql
var toVersion4 string

// migrations lead to each version from the one before it.
var migrations = map[int]string{2: toVersion2, 3: toVersion3, 4: toVersion4}

// Parameters of connections. With a write-ahead log and synchronous=normal
// nothing is lost when the process is killed, and when the power fails the
// last moments, nothing else.
const (
	writing = "_synchronous=normal&_busy_timeout=5000&_pragma=journal_size_limit(4194304)"
	reading = "mode=ro&_query_only=1&_defensive=1&_dqs=0&_busy_timeout=1000"
)

// connect only notes the parameters: connections are made when they are used.
func connect(path, parameters string) (*sql.DB, error) {
	name := url.URL{Scheme: "file", Path: path, RawQuery: parameters}
	return sql.Open("sqlite", name.String())
}

// openOrReplace opens the file for writing. If it is corrupt it is moved
// aside, and the warning says so: an error would come back at every start,
// and what can be read of the old flows is still there for a person.
func openOrReplace(path string) (w *writer, warning, err error) {
	w, err = openWriter(path)
	if err == nil || !IsCorrupt(err) {
		return w, nil, err
	}
	aside := path + corruptSuffix + time.Now().UTC().Format("20060102T150405.000Z")
	if err := moveAside(path, aside); err != nil {
		return nil, nil, err
	}
	warning = fmt.Errorf("flow store %s was corrupt and is now %s: %w", path, aside, err)
	w, err = openWriter(path)
	return w, warning, err
}

// IsCorrupt reports whether an error says that the file is damaged. To open
// it again moves it aside.
func IsCorrupt(err error) bool {
	var e *sqlite.Error
	if errors.As(err, &e) {
		code := e.Code() & 0xff
		return code == sqlite3.SQLITE_CORRUPT || code == sqlite3.SQLITE_NOTADB
	}
	return errors.Is(err, errCheck)
}

var errCheck = errors.New("integrity check")

const corruptSuffix = ".corrupt-"

// moveAside renames a file and the log that belongs to it. Of files that were
// moved aside earlier none is kept: they are large.
func moveAside(path, aside string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(path)+corruptSuffix) {
			if err := os.Remove(filepath.Join(filepath.Dir(path), e.Name())); err != nil {
				return err
			}
		}
	}
	for _, suffix := range []string{"-shm", "-wal", ""} {
		if err := os.Rename(path+suffix, aside+suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// createFile makes an empty file if there is none. SQLite would let everybody
// read it, and give its log the same rights.
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) {
		// It must not be opened here: to close it again would take away the
		// locks that SQLite may hold on it in this process.
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// prepareFile checks what the file is, and makes the tables in a new one.
// Nothing is changed in a file that is not ours.
func prepareFile(ctx context.Context, c *sql.Conn) error {
	var id, version, tables int
	for query, to := range map[string]*int{
		"PRAGMA application_id":              &id,
		"PRAGMA user_version":                &version,
		"SELECT count(*) FROM sqlite_schema": &tables,
	} {
		if err := c.QueryRowContext(ctx, query).Scan(to); err != nil {
			return err
		}
	}
	switch {
	case id == 0 && version == 0 && tables == 0:
		return createTables(ctx, c)
	case id != applicationID:
		return errors.New("it is a SQLite file, but not a flow store")
	case version > schemaVersion:
		return fmt.Errorf("a newer waybill made it: its schema has version %d, and this waybill knows %d", version, schemaVersion)
	}
	var check string
	if err := c.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&check); err != nil {
		return err
	}
	if check != "ok" {
		return fmt.Errorf("%w: %s", errCheck, check)
	}
	if version < schemaVersion {
		return migrate(ctx, c, version)
	}
	return nil
}

// migrate brings a file of an earlier version to this one, all or nothing.
func migrate(ctx context.Context, c *sql.Conn, version int) error {
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for version < schemaVersion {
		version++
		if _, err := tx.ExecContext(ctx, migrations[version]+fmt.Sprintf("PRAGMA user_version = %d;", version)); err != nil {
			return fmt.Errorf("bring the flow store to version %d: %w", version, err)
		}
	}
	return tx.Commit()
}

// createTables makes all or nothing of what is in a new file. How free pages
// are handled and that there is a log must be said before anything is in it,
// and stays so.
func createTables(ctx context.Context, c *sql.Conn) error {
	if _, err := c.ExecContext(ctx, "PRAGMA auto_vacuum = incremental; PRAGMA journal_mode = wal"); err != nil {
		return err
	}
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	versions := fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d;", applicationID, schemaVersion)
	if _, err := tx.ExecContext(ctx, schema+versions); err != nil {
		return err
	}
	return tx.Commit()
}
