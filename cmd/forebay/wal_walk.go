package main

import (
	"errors"
	"fmt"
	"iter"

	"github.com/hashicorp/raft"

	"forebay/replicate"
	"forebay/wal"
)

// walk gives single entries of a log to a reader that wants them mostly in order.
type walk struct {
	reader *wal.Reader
	next   func() (wal.Entry, error, bool)
	stop   func()
	at     uint64 // of the next entry
}

func newWalk(reader *wal.Reader) *walk { return &walk{reader: reader, stop: func() {}} }

func (w *walk) close() { w.stop() }

// fetch implements state.Fetch. An entry that lies before the last one costs the reading of its segment anew.
func (w *walk) fetch(index uint64) ([]byte, error) {
	if w.next == nil || index < w.at {
		w.stop()
		w.next, w.stop = iter.Pull2(w.reader.Entries(index))
	}
	for {
		e, err, ok := w.next()
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, fmt.Errorf("entry %d is not in the log", index)
		}
		w.at = e.Index + 1
		if e.Index < index {
			continue
		}
		if e.Index > index {
			return nil, fmt.Errorf("entry %d is not in the log, which begins with entry %d", index, e.Index)
		}
		if e.Type != raft.LogCommand {
			return nil, nil
		}
		return e.Data, nil
	}
}

// resuming walks over the entries of a log that may be damaged in front of where it is asked to begin; it ends where
// an entry is not whole, or not in one of the runs (nil: of all that is whole). A segment of whole entries that are not those
// that it was finished with is in none.
func resuming(reader *wal.Reader, runs []wal.Run) replicate.Entries {
	return func(from uint64) iter.Seq2[*raft.Log, error] {
		return func(yield func(*raft.Log, error) bool) {
			next, more := from, true
			_, err := reader.VerifyEntries(func(e *wal.Entry) {
				if !more || e.Index < next {
					return
				}
				if e.Index > next || runs != nil && !within(runs, next, next) {
					more = false
					yield(nil, fmt.Errorf("entry %d is not whole", next))
					return
				}
				next++
				more = yield(raftLog(e), nil)
			}, func(wal.Progress) error {
				if !more {
					return errWalked
				}
				return nil
			})
			if more && err != nil {
				yield(nil, err)
			}
		}
	}
}

// errWalked ends a walk.
var errWalked = errors.New("walked")
