package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"modernc.org/sqlite"

	"forebay/sinks"
)

// never is the context of statements that run inside do: who waits for them
// looks at the context there, and a statement that could be cancelled would cost a goroutine each.
func never() context.Context { return context.Background() }

// openDB gives a database of exactly one connection. Nothing is opened yet.
func openDB(dsn string) (*sql.DB, error) {
	connector, err := sqlite.NewConnector(dsn)
	if err != nil {
		return nil, fmt.Errorf("naming the database: %w", err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	return db, nil
}

// dial opens the file and sets what durability and memory stand on. It owns what
// it makes, and closes that when it fails.
func dial(path string, create bool) (_ *session, err error) {
	mode := "rw"
	if create {
		mode = "rwc"
	}
	u := url.URL{Scheme: "file", Path: path, RawQuery: "mode=" + mode}
	db, err := openDB(u.String())
	if err != nil {
		return nil, err
	}
	n := &session{db: db}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if n.conn, err = db.Conn(never()); err != nil {
		return nil, err
	}
	for _, pragma := range []string{
		fmt.Sprintf("busy_timeout = %d", lockSlice.Milliseconds()),
		fmt.Sprintf("cache_size = -%d", cacheKiB),
		fmt.Sprintf("journal_size_limit = %d", walLimit),
		// In WAL mode EXTRA is FULL: the log is synced at each commit. Should the file system
		// have no WAL, EXTRA also syncs the directory after the journal is removed.
		"synchronous = EXTRA",
	} {
		if _, err := n.conn.ExecContext(never(), "PRAGMA "+pragma); err != nil {
			return nil, err
		}
	}
	var journal string
	if err := n.conn.QueryRowContext(never(), "PRAGMA journal_mode = WAL").Scan(&journal); err != nil {
		return nil, err
	}
	if journal == "off" || journal == "memory" {
		return nil, sinks.Permanent(fmt.Errorf("the database stays in journal mode %q, which survives no crash: put it on a local file system", journal))
	}
	n.file, err = os.Stat(path)
	return n, err
}

// close gives everything back. Errors have nobody to tell: nothing uncommitted is kept.
func (n *session) close() {
	if n.insert != nil {
		_ = n.raw(func(driver.Conn) error { return n.insert.Close() })
	}
	if n.conn != nil {
		_, _ = n.conn.ExecContext(never(), "ROLLBACK")
		_ = n.conn.Close()
	}
	_ = n.db.Close()
}

// raw lends the driver's own connection.
func (n *session) raw(f func(driver.Conn) error) error {
	return n.conn.Raw(func(c any) error { return f(c.(driver.Conn)) })
}

func (n *session) exec(query string, args ...any) error {
	_, err := n.conn.ExecContext(never(), query, args...)
	return err
}

// prepare compiles the statement of the rows.
func (n *session) prepare(t *table) error {
	return n.raw(func(c driver.Conn) error {
		stmt, err := c.Prepare(t.insertSQL())
		if err == nil { // the driver's nil is not nil as an interface
			n.insert = stmt
		}
		return err
	})
}

// same fails when the path no longer leads to the file that is open: what is
// written into a removed file is lost.
func (n *session) same(path string) error {
	now, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(now, n.file) {
		return errMoved
	}
	return err
}

// connect gives the sink a session if it has none that can be used.
func (s *Sink) connect(ctx context.Context) error {
	if s.session != nil && !s.broken {
		return nil
	}
	if err := s.disconnect(ctx); err != nil {
		return err
	}
	path, create, reopen, made := s.cfg.Path, s.cfg.Create && !s.open, s.open, s.made
	err := s.patiently(ctx, "connect", func() error {
		if _, err := os.Stat(path); !create && errors.Is(err, fs.ErrNotExist) {
			if reopen {
				return errMoved
			}
			return fmt.Errorf("there is no database at %s, and create = false", path)
		}
		n, err := dial(path, create)
		if err == nil {
			made <- n // has room: disconnect took what was left
		}
		return err
	})
	s.take()
	return err
}

// take adopts the session that a dial has made, also one that nobody waited for.
func (s *Sink) take() {
	select {
	case s.session = <-s.made:
	default:
	}
}

// disconnect closes the session; a transaction that is open is rolled back.
func (s *Sink) disconnect(ctx context.Context) error {
	if err := s.stubborn.Wait(ctx); err != nil {
		return fmt.Errorf("closing the database: %w", err)
	}
	s.take()
	n := s.session
	s.session, s.broken = nil, false
	if n == nil {
		return nil
	}
	return s.do(ctx, "", func() error { n.close(); return nil })
}

// drop gives up the session after an error of unknown effect; the next call
// makes another. It keeps its own error to itself: the one that led here is told.
func (s *Sink) drop(ctx context.Context) {
	s.broken = true
	if s.stubborn.Hung() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWait)
	defer cancel()
	_ = s.disconnect(ctx)
}

// begin starts a write transaction.
func (s *Sink) begin(ctx context.Context) error {
	n := s.session
	return s.patiently(ctx, "begin", func() error { return n.exec("BEGIN IMMEDIATE") })
}

// patiently is do for what has to wait for other connections, within bounds.
func (s *Sink) patiently(ctx context.Context, step string, op func() error) error {
	until := time.Now().Add(lockWait)
	for {
		err := s.do(ctx, step, op)
		if !busy(err) || time.Now().After(until) {
			return err
		}
		pause := time.NewTimer(lockPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return errors.Join(err, context.Cause(ctx))
		}
	}
}

// syncDir makes a new file's name durable.
func syncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}
