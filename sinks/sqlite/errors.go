package sqlite

import (
	"errors"
	"fmt"
	"strings"

	driver "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"forebay/sinks"
)

// errMoved says that the file at the path is not the one that was opened.
var errMoved = errors.New("the database file was moved, removed or replaced while it was open")

// code gives SQLite's primary result code, 0 when err is not SQLite's.
func code(err error) int {
	var e *driver.Error
	if errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return 0
}

// refusable tells whether err is about the row alone: the transaction stands,
// and another row may pass.
func refusable(err error) bool {
	switch code(err) {
	case lib.SQLITE_CONSTRAINT, lib.SQLITE_MISMATCH, lib.SQLITE_TOOBIG:
		return true
	}
	return false
}

func busy(err error) bool {
	return code(err) == lib.SQLITE_BUSY || code(err) == lib.SQLITE_LOCKED
}

// words cuts the driver's decoration off SQLite's message.
func words(err error) error {
	var e *driver.Error
	if !errors.As(err, &e) {
		return err
	}
	msg := strings.TrimPrefix(strings.TrimPrefix(e.Error(), "SQL logic error: "), "constraint failed: ")
	return &worded{msg: strings.TrimSuffix(msg, fmt.Sprintf(" (%d)", e.Code())), err: err}
}

type worded struct {
	msg string
	err error
}

func (w *worded) Error() string { return w.msg }
func (w *worded) Unwrap() error { return w.err }

// explain tells temporary from permanent, and puts into words what an operator can do.
// What others cure while the gateway runs (room, rights, locks, a disk that answers
// again) is temporary; what no attempt will ever pass is permanent.
func explain(err error) error {
	if err == nil || sinks.IsPermanent(err) {
		return err
	}
	if errors.Is(err, errMoved) {
		return sinks.Permanent(fmt.Errorf("%w: put it back, and start again", err))
	}
	switch code(err) {
	case lib.SQLITE_FULL:
		return fmt.Errorf("the disk is full, and the batch is tried again until there is room: %w", words(err))
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED:
		return fmt.Errorf("another connection holds the lock of the database, and the batch is tried again: %w", words(err))
	case lib.SQLITE_READONLY:
		return fmt.Errorf("the database is read-only: the gateway's user must be able to write the file and its directory: %w", words(err))
	case lib.SQLITE_CANTOPEN, lib.SQLITE_PERM, lib.SQLITE_AUTH:
		return fmt.Errorf("the database cannot be opened: the directory must be there, and writable for the gateway's user: %w", words(err))
	case lib.SQLITE_CORRUPT:
		return sinks.Permanent(fmt.Errorf("the database is corrupt: stop the gateway, save the file, and restore it or repair it with sqlite3's .recover: %w", words(err)))
	case lib.SQLITE_NOTADB:
		return sinks.Permanent(fmt.Errorf("the file is not a SQLite database: give another path, or move the file away: %w", words(err)))
	case lib.SQLITE_IOERR:
		return fmt.Errorf("the disk failed, and the batch is tried again: %w", words(err))
	case lib.SQLITE_NOLFS, lib.SQLITE_FORMAT:
		return sinks.Permanent(words(err))
	case 0:
		return err
	}
	return words(err)
}
