package replicate

import (
	"sync/atomic"

	"github.com/hashicorp/raft"

	"forebay/internal/record"
)

// KeepStart tells how much of a command the state machine needs to take it in: of a block what it
// says of itself. It is what Store.ReadStart is to give (wal.Config.KeepStart).
func KeepStart(command []byte) int {
	if len(command) > 0 && (command[0] == record.TagBlock || command[0] == record.TagPart) {
		if n, err := record.SummaryLength(command); err == nil {
			return n
		}
	}
	return len(command)
}

// replayedLog is the log as the Raft of a single voter sees it: until what was there at the start has been
// applied, entries come as ReadStart gives them, and the log is not read a second time. Nobody
// else asks that Raft for entries: it sends them to no one before it leads, which comes after.
type replayedLog struct {
	Store
	// last is the end of the log at the start, bytes what follows the newest snapshot; for the
	// machine, which applies it.
	last  uint64
	bytes int64
	done  atomic.Bool
}

// newReplayed looks at what a start after the snapshot at index takes in again.
func newReplayed(store Store, index uint64) (*replayedLog, error) {
	_, last, err := bounds(store)
	if err != nil {
		return nil, err
	}
	return &replayedLog{Store: store, last: last, bytes: store.BytesBefore(last+1) - store.BytesBefore(index+1)}, nil
}

// GetLog implements raft.LogStore.
func (s *replayedLog) GetLog(index uint64, out *raft.Log) error {
	if s.done.Load() {
		return s.Store.GetLog(index, out)
	}
	return s.ReadStart(index, out)
}

// applied tells how much of the log the entries up to index are that were applied, of which size
// came whole. The last of what was there at the start counts for all of it.
func (s *replayedLog) applied(index uint64, size int64) int64 {
	if s == nil || s.done.Load() {
		return size
	}
	if index < s.last {
		return 0
	}
	s.done.Store(true)
	s.ForgetStarts()
	return s.bytes + size
}
