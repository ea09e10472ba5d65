package wal

import (
	"sync"

	"github.com/hashicorp/raft"
)

// entryOverhead is what an entry of the ring takes besides its bytes, about.
const entryOverhead = 128

// ring keeps the newest entries, at most limit bytes of them. It refers to the
// Data of the entries that raft stored: neither raft nor its users change them.
// Safe for concurrent use.
type ring struct {
	mu      sync.RWMutex
	limit   int64
	bytes   int64
	entries []raft.Log // entry i lies at i mod len(entries)
	first   uint64     // of count entries
	count   int
}

func (r *ring) slot(index uint64) *raft.Log { return &r.entries[index%uint64(len(r.entries))] }

func entryBytes(e *raft.Log) int64 { return int64(len(e.Data)+len(e.Extensions)) + entryOverhead }

// get fills out with entry index, if it is here.
func (r *ring) get(index uint64, out *raft.Log) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if index < r.first || index-r.first >= uint64(r.count) {
		return false
	}
	*out = *r.slot(index)
	return true
}

// push appends logs, which follow what is here, and forgets the oldest entries
// beyond the limit.
func (r *ring) push(logs []*raft.Log) {
	if r.limit <= 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range logs {
		if r.count > 0 && e.Index != r.first+uint64(r.count) {
			r.dropLocked(r.count)
		}
		n := entryBytes(e)
		for r.count > 0 && r.bytes+n > r.limit {
			r.dropLocked(1)
		}
		if n > r.limit {
			continue
		}
		if r.count == len(r.entries) {
			r.growLocked()
		}
		if r.count == 0 {
			r.first = e.Index
		}
		slot := r.slot(e.Index)
		*slot = raft.Log{Index: e.Index, Term: e.Term, Type: e.Type}
		// What is read from disk tells nil and empty not apart; neither does this.
		if len(e.Data) > 0 {
			slot.Data = e.Data
		}
		if len(e.Extensions) > 0 {
			slot.Extensions = e.Extensions
		}
		r.count++
		r.bytes += n
	}
}

func (r *ring) growLocked() {
	old := ring{entries: r.entries, first: r.first, count: r.count}
	r.entries = make([]raft.Log, max(64, 2*len(old.entries)))
	for i := range uint64(old.count) {
		*r.slot(old.first + i) = *old.slot(old.first + i)
	}
}

// dropLocked forgets the n oldest entries.
func (r *ring) dropLocked(n int) {
	for range n {
		e := r.slot(r.first)
		r.bytes -= entryBytes(e)
		*e = raft.Log{}
		r.first++
		r.count--
	}
}

// cutFront forgets entries below first.
func (r *ring) cutFront(first uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if first > r.first {
		r.dropLocked(int(min(first-r.first, uint64(r.count))))
	}
}

// cutBack forgets entries above last.
func (r *ring) cutBack(last uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.count > 0 && r.first+uint64(r.count)-1 > last {
		e := r.slot(r.first + uint64(r.count) - 1)
		r.bytes -= entryBytes(e)
		*e = raft.Log{}
		r.count--
	}
}

// clear forgets everything.
func (r *ring) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries, r.count, r.bytes = nil, 0, 0
}

func (r *ring) stats() (entries int, bytes int64) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.count, r.bytes
}
