package wal

import (
	"errors"
	"fmt"
	"path/filepath"
)

var (
	// ErrInUse says that another process, or another Log of this one, holds the
	// directory. Trying again later may help.
	ErrInUse = errors.New("log directory is in use")
	// ErrClosed is returned by every operation after Close.
	ErrClosed = errors.New("log is closed")
	// ErrStalled says that a store operation or a read lasted longer than Config.StallTimeout.
	// It may still land: the process must end.
	ErrStalled = errors.New("disk operation hangs")
	// ErrOutOfOrder refuses entries that do not follow the last one. Nothing was written.
	ErrOutOfOrder = errors.New("entry is out of order")
	// ErrTooLarge refuses an entry over MaxEntry. Nothing was written.
	ErrTooLarge = errors.New("entry is too large")
	// ErrApplied refuses to delete entries from the end that were applied already.
	// Nothing was deleted.
	ErrApplied = errors.New("entries are applied and cannot be deleted from the end")
	// ErrRange refuses to delete from the middle of the log. Nothing was deleted.
	ErrRange = errors.New("range is neither at the beginning nor at the end of the log")
	// ErrChanged tells a Reader that the log was cut or reset while it read: begin again.
	ErrChanged = errors.New("log changed while it was read")
)

// CorruptError is damage: bytes that were acknowledged and are not what was
// written. Nothing was changed by whoever found it.
type CorruptError struct {
	// Dir is the log's directory, Segment the path in it of the damaged file.
	Dir, Segment string
	// Offset is the byte in Segment at which the damage shows, -1 when it is not
	// at one place.
	Offset int64
	// Index is the entry that should be there, 0 when it is about no entry.
	Index uint64
	// Expected and Found say what should be there, and what is.
	Expected, Found string
	// Err is what the system said, if the bytes could not even be read.
	Err error
}

// Error names the place, the damage and the way out.
func (e *CorruptError) Error() string {
	where := filepath.Join(e.Dir, e.Segment)
	if e.Offset >= 0 {
		where += fmt.Sprintf(" at byte %d", e.Offset)
	}
	if e.Index > 0 {
		where += fmt.Sprintf(", entry %d", e.Index)
	}
	return fmt.Sprintf("log is damaged: %s: expected %s, found %s; nothing was changed: "+
		"`forebay wal verify` lists all the damage, and what can be done (ops/RUNBOOK.md, The log is damaged)",
		where, e.Expected, e.Found)
}

// Unwrap gives the system's error, if there is one.
func (e *CorruptError) Unwrap() error { return e.Err }

// VersionError says that the log was written by a newer version. Nothing was touched.
type VersionError struct {
	File           string
	Version, Known uint32
}

// Error names the file and both versions.
func (e *VersionError) Error() string {
	return fmt.Sprintf("%s has format version %d, this program knows versions up to %d: "+
		"start a newer version of forebay; nothing was touched", e.File, e.Version, e.Known)
}

// FailedError is the first failed write, sync or removal. The log takes nothing
// more until it is opened again. Err is the system's error, so that
// errors.Is(err, syscall.ENOSPC) tells a full disk.
type FailedError struct {
	// Op is what failed, in words ("appending"); Path is where.
	Op, Path string
	Err      error
}

// Error says what failed and that the log stays closed to writes.
func (e *FailedError) Error() string {
	return fmt.Sprintf("%s to %s failed, the log takes nothing more until it is opened again: %v", e.Op, e.Path, e.Err)
}

// Unwrap gives the system's error.
func (e *FailedError) Unwrap() error { return e.Err }
