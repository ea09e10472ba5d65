// Package sqlite is the sink that keeps a table in a SQLite database.
//
// # What a consumer sees
//
// A table that changes by whole batches: rows added (insert), replaced by key (upsert),
// or brought up to date by key (accumulate: running totals). Beside it stand three tables of the
// sink's own, which belong to the gateway and are not to be written:
//
//	forebay_sinks     whose each table is: gateway, log, sink, and the node unless shared
//	forebay_lanes     per table and lane: the term that holds it, the cursor, what was pruned
//	forebay_ledger    per table and lane: the batches applied
//
// The columns are the mapping's, or without any: topic, partition, offset, timestamp,
// key, value, headers (JSON, [["k","v"],…]).
//
// # Delivery
//
// Exactly-once, by ledger: the rows of a batch and its number are written in
// one transaction, so a batch whose number is there is never applied again. Terms
// fence inside the same transaction. DESIGN.md draws the tables and argues each crash
// point. A batch that gives no row leaves no trace.
//
// The database is put into WAL mode, which takes a local file system: never a network one.
package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"forebay/sinks"
)

// Mode says what a record does to the table.
type Mode string

// The modes.
const (
	// Insert adds a row.
	Insert Mode = "insert"
	// Upsert adds a row, or replaces the other columns of the row with its key.
	Upsert Mode = "upsert"
	// Accumulate adds a row, or changes the row with its key by the Update expressions.
	Accumulate Mode = "accumulate"
)

// Config is the table [sinks.NAME.sqlite], and the sink's mapping.
type Config struct {
	// Path of the database file. Its directory must be there.
	Path string
	// Table that takes the rows.
	Table string
	// Mode; default Insert.
	Mode Mode
	// Key names the columns that identify a row, for Upsert and Accumulate. The table must
	// have a PRIMARY KEY or UNIQUE index over exactly these.
	Key []string
	// Update gives, for Accumulate, SQL expressions by column: a bare name is the row
	// that is there, excluded.name the one that comes. Other columns keep their first value.
	Update map[string]string
	// Types declares columns: INTEGER, REAL, TEXT, BLOB or ANY. Those not named follow the
	// mapping where it is known, else ANY.
	Types map[string]string
	// Create makes the database and the table when they are missing, and the table
	// STRICT, so that what does not fit is refused rather than kept wrong.
	Create bool
	// Shared says that several nodes, all on this host, deliver into this one file.
	Shared bool
	// Mapper transforms each record; nil writes the record as it is. When it has a
	// method Kinds() []string (see package mapping), Create follows it.
	Mapper sinks.Mapper
	// Logger carries the sink's name already; nil is none.
	Logger *slog.Logger
}

// Bounds of time and memory.
const (
	// lockSlice is the longest that SQLite waits for a lock without looking at the context.
	lockSlice = 100 * time.Millisecond
	// lockWait is how long a transaction waits for another writer before the
	// attempt is given back to the batcher's backoff.
	lockWait = 5 * time.Second
	// lockPause is the pause before the lock is asked for again.
	lockPause = 5 * time.Millisecond
	// closeWait bounds Close, and taking back a failed attempt.
	closeWait = time.Second
	// cacheKiB bounds SQLite's page cache; a larger transaction spills into the WAL.
	cacheKiB = 8 << 10
	// walLimit is what the WAL file is cut back to after a large batch, in bytes.
	walLimit = 64 << 20
	// chunkRows and chunkBytes bound the rows handed to SQLite in one call
	// that may be left behind; a single larger row goes alone.
	chunkRows  = 512
	chunkBytes = 256 << 10
)

// Sink is the SQLite sink of one lane. See package sinks for who may call it when.
type Sink struct {
	cfg   Config
	table *table
	// stubborn runs everything that the database is asked.
	stubborn sinks.Stubborn
	// point is called by tests between the steps; nil otherwise.
	point func(ctx context.Context, step string) error

	// Between Open and Close:
	open bool
	id   sinks.Identity
	// next is the cursor: what is below it is delivered. oldest is the lowest batch
	// that may come again; what is below may have been pruned.
	next, oldest uint64
	chunk        *chunk

	// session is nil or one connection; broken tells that its state is not known. made carries
	// a session from the call that dialled it.
	session *session
	broken  bool
	made    chan *session
}

// session is one connection, with what was prepared on it.
type session struct {
	db     *sql.DB
	conn   *sql.Conn
	insert driver.Stmt
	file   os.FileInfo
}

// New checks cfg, and the SQL that comes of it as far as that can be without a database. It
// touches nothing outside the process. The error joins a *sinks.SettingError for each
// thing that is wrong.
func New(cfg Config) (*Sink, error) {
	t, err := settings(&cfg)
	if err != nil {
		return nil, err
	}
	return &Sink{cfg: cfg, table: t, made: make(chan *session, 1)}, nil
}

// settings fills in what cfg leaves out and checks it. The table is as much as
// could be understood, also beside an error.
func settings(cfg *Config) (*table, error) {
	var errs []error
	if cfg.Mode == "" {
		cfg.Mode = Insert
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Path == "" {
		errs = append(errs, bad("path", "is required"))
	} else if strings.ContainsRune(cfg.Path, 0) || strings.HasPrefix(cfg.Path, ":") || strings.HasPrefix(cfg.Path, "file:") {
		errs = append(errs, bad("path", "%q: want the path of a file", cfg.Path))
	} else if path, err := filepath.Abs(cfg.Path); err != nil {
		errs = append(errs, bad("path", "%w", err))
	} else {
		cfg.Path = path
	}
	t, err := newTable(cfg)
	return t, errors.Join(append(errs, err)...)
}

// Guarantee is exactly-once.
func (s *Sink) Guarantee() sinks.Guarantee { return sinks.ExactlyOnce }

// Destination is the file's real path and the table.
func (s *Sink) Destination() string { return s.cfg.Destination() }

// Destination is that of the sink, whatever else is wrong with its settings.
func (c *Config) Destination() string {
	// Names of tables are compared without regard to the case of ASCII letters.
	path, _ := filepath.Abs(c.Path) // fails only where there is no working directory, and New says so
	return "sqlite:" + realPath(path) + "#" + lowerASCII(c.Table)
}

// maxLinks bounds the links that lead to what is not there: a loop ends.
const maxLinks = 40

// realPath follows links in as much of the path as is there, and a link to a file
// that is not: making the file must not change where the sink writes.
func realPath(path string) string { return resolve(path, maxLinks) }

func resolve(path string, links int) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	dir, base := filepath.Split(path)
	if dir = filepath.Clean(dir); dir == path {
		return path
	}
	target, err := os.Readlink(path)
	if err != nil || links == 0 {
		return filepath.Join(resolve(dir, links), base)
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join(dir, target)
	}
	return resolve(target, links-1)
}

func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// Close lets go of the database. It waits at most a second for a call that hangs.
func (s *Sink) Close() error {
	s.open = false
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	return s.disconnect(ctx)
}

// do runs op, which owns what it touches, and comes back when ctx ends. An op that is left
// behind ends its transaction itself: nobody goes on with it, and until the next attempt
// it would hold the database's only write lock.
func (s *Sink) do(ctx context.Context, step string, op func() error) error {
	point, n := s.point, s.session
	return s.stubborn.Do(ctx, func() error {
		if point != nil && step != "" {
			if err := point(ctx, step); err != nil {
				return err
			}
		}
		err := op()
		if n != nil && ctx.Err() != nil {
			_ = n.exec("ROLLBACK") // fails where no transaction is open
		}
		return err
	})
}
