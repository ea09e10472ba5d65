package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Check finds all that is wrong with cfg, at once, without touching the database: what New
// finds, and every expression that SQLite does not compile, tried in a database in
// memory. A column that an existing table has besides the mapping's is known only to
// Open. The error joins a *sinks.SettingError for each.
func Check(ctx context.Context, cfg Config) error {
	t, err := settings(&cfg)
	return errors.Join(err, t.compile(ctx, cfg.Create, err != nil))
}

// compile tries the statements, each expression by itself where they do not compile
// together. Where the settings are known to be wrong, only what is wrong with an expression is told.
func (t *table) compile(ctx context.Context, create, known bool) error {
	db, err := openDB("file::memory:")
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	conn, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("opening a database in memory: %w", err)
	}
	defer func() { _ = conn.Close() }()
	_, err = conn.ExecContext(ctx, t.createSQL())
	if err != nil && known { // perhaps for its name: any other serves
		t.name = "t"
		if _, err := conn.ExecContext(ctx, t.createSQL()); err != nil {
			return nil
		}
	} else if err != nil {
		return fmt.Errorf("making table %q: %w", t.name, words(err))
	}
	if err = prepare(ctx, conn, t.insertSQL()); err == nil && !known {
		return nil
	}
	// Without something to conflict with, SQLite does not look at the expressions.
	if _, err := conn.ExecContext(ctx, "CREATE UNIQUE INDEX forebay_check ON "+quote(t.name)+" ("+quote(t.cols[0].name)+")"); err != nil {
		return fmt.Errorf("making an index on table %q: %w", t.name, words(err))
	}
	var errs []error
	for _, c := range t.cols {
		if c.update == "" {
			continue
		}
		err := prepare(ctx, conn, t.updateSQL(c))
		if err != nil && (create || !strings.Contains(err.Error(), "no such column")) {
			errs = append(errs, bad("update."+c.name, "%q: %w", c.update, words(err)))
		}
	}
	if len(errs) == 0 && !known && (create || !strings.Contains(err.Error(), "no such column")) {
		errs = append(errs, fmt.Errorf("compiling the statement for table %q: %w", t.name, words(err)))
	}
	return errors.Join(errs...)
}

// updateSQL accumulates one column, on whichever conflict: it compiles whatever the key is.
func (t *table) updateSQL(c column) string {
	one := table{name: t.name, mode: Insert, cols: slices.Clone(t.cols)}
	for i := range one.cols {
		one.cols[i].key, one.cols[i].update = false, ""
	}
	return one.insertSQL() + " ON CONFLICT DO UPDATE SET " + quote(c.name) + " = (" + c.update + ")"
}

func prepare(ctx context.Context, conn *sql.Conn, statement string) error {
	stmt, err := conn.PrepareContext(ctx, statement)
	if err != nil {
		return err
	}
	return stmt.Close()
}
