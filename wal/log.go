package wal

import (
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tidwall/wal"
)

// Config says where the log is and how it behaves. Only Dir must be set.
type Config struct {
	// Dir is the log's directory; it is made if it is not there.
	Dir string
	// SegmentSize ends a segment once it is reached, in bytes. Default 4 MiB; 4 KiB to 1 GiB.
	// It may change between opens.
	SegmentSize int64
	// RingBytes bounds the newest entries that are kept in memory, in bytes. Default 16 MiB; negative is none.
	RingBytes int64
	// SnapshotIndex and SnapshotTerm are those of the newest snapshot, 0 if there
	// is none. A log that ends below it is emptied and begins after it.
	SnapshotIndex, SnapshotTerm uint64
	// SnapshotTaken says that this log itself held everything up to the snapshot,
	// which no leader installed: a log that is gone or ends below it has lost
	// entries, and Open refuses instead of emptying it.
	SnapshotTaken bool
	// KeepStart, if not nil, is asked by Open of the data of each command after the snapshot how
	// many of its first bytes ReadStart is to give.
	KeepStart func(data []byte) int
	// StallTimeout is how long one store operation, or a read from disk, may take before the log is
	// taken for hung: OnFailure(ErrStalled) is called. Default 0: never.
	StallTimeout time.Duration
	// LockWait is how long Open waits for a held lock. Default 3 s; negative does not wait.
	LockWait time.Duration
	// OnFailure is called once, at the first failure: a write or sync that
	// failed, a read that met damage, a stall. The process must end. It is called
	// from the goroutine that met the failure, or from one of its own for a
	// stall; it must not block and must not call the Log, but for Err. Nil is allowed.
	OnFailure func(error)
	// Logger takes one line per event that an operator acts on. Default slog.Default().
	Logger *slog.Logger
	// Registerer takes the metrics of this log, labelled with Lane, until Close. Nil: none.
	Registerer prometheus.Registerer
	// Lane is the value of the label "lane".
	Lane string
	// Files is the file layer. Default: the operating system.
	Files Files
}

// Defaults of Config.
const (
	DefaultSegmentSize = 4 << 20
	DefaultRingBytes   = 16 << 20
	DefaultLockWait    = 3 * time.Second

	minSegmentSize = 4 << 10
	maxSegmentSize = 1 << 30
)

// library is what we use of tidwall/wal.
type library interface {
	WriteBatch(b *wal.Batch) error
	Close() error
}

// segment is one segment of the open log. All but the last are finished and do
// not change. Guarded by Log.mu, but for the writer's own fields.
type segment struct {
	id          uint64 // of these very bytes: a segment that was cut is another one
	first, last uint64 // last is first-1 while it is empty
	size        int64
	before      int64 // bytes of all segments that lay before it since the log was opened
	// Only for the last segment:
	file    *handle
	offsets []uint32 // of its entries' length prefixes
	chain   uint32
	lastCRC uint32
}

// Log is the open log. Create it with Open; Close it.
type Log struct {
	cfg     Config
	files   Files
	p       paths
	log     *slog.Logger
	metrics *metrics
	lock    *os.File

	// store is held by whoever writes entries or changes the log's end. It is
	// held across syncs. The fields below belong to its holder.
	store   sync.Mutex
	lib     library
	batch   *wal.Batch
	scratch []byte
	marks   *markFile
	active  *segment // the last one, whose fields are also guarded by mu
	rolls   int      // segments ended since the library was opened
	epoch   uint64   // the manifest's

	// structure is held by whoever changes which segments there are, but for
	// the end of one: a trim, a cut, a reset. Taken after store.
	structure sync.Mutex
	manifest  *manifest

	// mu guards what readers see. It is never held across a system call.
	mu          sync.RWMutex
	first, last uint64 // logical; last is first-1 when there is no entry
	asked       uint64 // everything below may go, says raft
	floor       uint64 // nothing from here on may go; 0: nothing at all
	prev        termed // the entry before a log that was begun after a snapshot
	installed   termed // a snapshot that the next deletion of everything makes way for
	segs        []*segment
	gen         uint64 // rises with each change of beginning or end
	ids         uint64 // of segments, given so far
	closed      bool

	ring    ring
	starts  starts
	cold    coldCache
	applied atomic.Uint64
	bytes   atomic.Int64
	torn    int64 // bytes cut at open

	failure  failure
	watchdog watchdog

	trimWanted chan struct{}
	stop       chan struct{}
	trimmer    sync.WaitGroup
}

// termed names an entry by index and term.
type termed struct{ index, term uint64 }

// FirstIndex returns the index of the oldest entry, 0 if there is none.
func (l *Log) FirstIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return 0, ErrClosed
	}
	if l.first > l.last {
		return 0, nil
	}
	return l.first, nil
}

// LastIndex returns the index of the newest entry, 0 if there is none.
func (l *Log) LastIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return 0, ErrClosed
	}
	if l.first > l.last {
		return 0, nil
	}
	return l.last, nil
}

// IsMonotonic tells raft that indexes have no holes, so that it empties the log
// when it installs a snapshot.
func (l *Log) IsMonotonic() bool { return true }

// SetFloor says that entry index and all later ones are still needed: no
// deletion from the front takes them. Until it is called none is taken; a lower
// index than before changes nothing. What raft asked to delete before and
// the floor held goes now, segment by segment, in the background. It does not wait for the disk.
func (l *Log) SetFloor(index uint64) {
	l.mu.Lock()
	l.floor = max(l.floor, index)
	moved := l.advanceLocked()
	l.mu.Unlock()
	if moved {
		l.wantTrim()
	}
}

// SetApplied says that entries up to index are applied: they are never deleted
// from the end. Calls with a lower index change nothing.
func (l *Log) SetApplied(index uint64) {
	for {
		old := l.applied.Load()
		if index <= old || l.applied.CompareAndSwap(old, index) {
			return
		}
	}
}

// Installed says that a snapshot of a leader, up to index with the entry there
// of term, replaced the state: the next deletion of the whole log is obeyed
// whatever the floor says, and the log then begins at index+1.
func (l *Log) Installed(index, term uint64) {
	l.mu.Lock()
	l.installed = termed{index, term}
	l.mu.Unlock()
}

// Bytes is what the segments take on disk, in bytes.
func (l *Log) Bytes() int64 { return l.bytes.Load() }

// BytesBefore is about how many bytes on disk hold entries below index. It is
// exact at borders of segments and within the last one.
func (l *Log) BytesBefore(index uint64) int64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	s := l.findSegment(index)
	if s == nil {
		return 0
	}
	sum := s.before - l.segs[0].before
	at := index - s.first
	switch {
	case index > s.last:
		return sum + s.size
	case at < uint64(len(s.offsets)):
		return sum + int64(s.offsets[at])
	}
	return sum + int64(float64(s.size)*float64(at)/float64(s.last-s.first+1))
}

// BytesSince is about how many bytes on disk hold entry index and later ones.
func (l *Log) BytesSince(index uint64) int64 { return max(l.Bytes()-l.BytesBefore(index), 0) }

// Stats is a picture of the log.
type Stats struct {
	// First and Last are the oldest and newest entry, 0 when there is none.
	First, Last uint64
	// Floor is the first entry that may not go, Applied the last one that may
	// not be cut; Asked is below which raft wants to be rid of entries.
	Floor, Applied, Asked uint64
	// Bytes is what the segments take on disk, Segments how many there are.
	Bytes    int64
	Segments int
	// RingEntries and RingBytes are what is kept in memory.
	RingEntries int
	RingBytes   int64
	// TornBytes is what Open cut off the end.
	TornBytes int64
}

// Stats returns a consistent picture.
func (l *Log) Stats() Stats {
	l.mu.RLock()
	defer l.mu.RUnlock()
	st := Stats{
		Floor: l.floor, Applied: l.applied.Load(), Asked: l.asked,
		Bytes: l.bytes.Load(), Segments: len(l.segs), TornBytes: l.torn,
	}
	if l.first <= l.last {
		st.First, st.Last = l.first, l.last
	}
	st.RingEntries, st.RingBytes = l.ring.stats()
	return st
}

// Err returns the first failure, nil while there is none.
func (l *Log) Err() error { return l.failure.get() }

// Failed is closed at the first failure; Err then tells it.
func (l *Log) Failed() <-chan struct{} { return l.failure.done }

// Close waits for a running store, stops the log's goroutine and gives the
// directory free. What was stored is durable already. Later calls return ErrClosed.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	l.closed = true
	l.mu.Unlock()
	close(l.stop)
	l.trimmer.Wait()
	l.store.Lock()
	defer l.store.Unlock()
	l.watchdog.close()
	err := l.release()
	l.metrics.unregister()
	return err
}

// release closes what is open, in reverse order; the lock goes last.
func (l *Log) release() error {
	var errs []error
	keep := func(err error) {
		// After a failure nothing that closing says is news.
		if err != nil && l.failure.get() == nil {
			errs = append(errs, err)
		}
	}
	if l.lib != nil {
		keep(l.lib.Close())
		l.lib = nil
	}
	l.cold.clear()
	l.ring.clear()
	l.mu.Lock()
	for _, s := range l.segs {
		if s.file != nil {
			keep(s.file.release())
			s.file = nil
		}
	}
	l.mu.Unlock()
	if l.marks != nil {
		keep(l.marks.f.Close())
	}
	if l.manifest != nil {
		keep(l.manifest.close())
	}
	if l.lock != nil {
		keep(l.lock.Close())
	}
	if len(errs) > 0 {
		return errs[0]
	}
	return nil
}

// newID numbers a segment. For holders of mu.
func (l *Log) newID() uint64 {
	l.ids++
	return l.ids
}

// findSegment returns the segment that holds index. For holders of mu.
func (l *Log) findSegment(index uint64) *segment {
	i, found := slices.BinarySearchFunc(l.segs, index, func(s *segment, index uint64) int {
		switch {
		case s.first < index:
			return -1
		case s.first > index:
			return 1
		}
		return 0
	})
	if !found {
		i--
	}
	if i < 0 {
		return nil
	}
	return l.segs[i]
}
