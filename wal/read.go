package wal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// coldSegments is how many finished segments are kept open with their index of
// offsets. An index takes 4 bytes per entry.
const coldSegments = 16

// handle is an open file that is closed when its last user has let go of it.
type handle struct {
	File
	users atomic.Int32
}

func newHandle(f File) *handle {
	h := &handle{File: f}
	h.users.Store(1)
	return h
}

// retain adds a user. Only who knows that there is one already may call it.
func (h *handle) retain() *handle {
	h.users.Add(1)
	return h
}

func (h *handle) release() error {
	if h.users.Add(-1) > 0 {
		return nil
	}
	return h.Close()
}

// GetLog fills out with entry index, or returns raft.ErrLogNotFound. The newest
// entries come from memory; others are read from disk, checked, with a buffer of
// their own. The caller must not change out.Data. Any number of calls may run at once.
// Damage is a *CorruptError, and fails the log.
func (l *Log) GetLog(index uint64, out *raft.Log) error {
	return l.ReadLog(index, out, nil)
}

// ReadLog is GetLog for who reads many entries one after the other: what comes from disk is
// read into *buf, which is made larger where need be, so out is valid only until *buf is used
// again. A nil buf is a new one. Each call needs a buffer of its own.
func (l *Log) ReadLog(index uint64, out *raft.Log, buf *[]byte) error {
	if buf == nil {
		buf = new([]byte)
	}
	return l.read(index, out, func(sp span) error {
		if n := int(sp.end - sp.off); cap(*buf) < n {
			*buf = make([]byte, n)
		} else {
			*buf = (*buf)[:n]
		}
		return l.readFrame(sp, *buf, out)
	})
}

// read fills out from memory, or lets fetch do it from disk: again if beginning or end
// moved under it, and otherwise what it returns is a failure of the log.
func (l *Log) read(index uint64, out *raft.Log, fetch func(span) error) error {
	// A reader that never waits would keep the processor for 10 ms at a time from a writer that
	// comes back from its sync.
	runtime.Gosched()
	if l.ring.get(index, out) {
		return nil
	}
	l.metrics.coldReads.Inc()
	defer l.watchRead()()
	for {
		sp, err := l.locate(index, out)
		if err != nil || sp.file == nil {
			return err
		}
		leave := l.cold.enter()
		err = fetch(sp)
		leave()
		_ = sp.file.release() // opened for reading: closing it has nothing to tell
		if err == nil {
			return nil
		}
		if l.generation() == sp.gen {
			return l.failure.set(err)
		}
	}
}

// span is where a frame lies. The file is retained for who gets it.
type span struct {
	file     *handle
	segment  uint64
	index    uint64
	off, end int64
	gen      uint64
}

func (l *Log) generation() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.gen
}

// locate finds the frame of entry index. It returns no file if it has filled
// out already: the entry before the log's beginning.
func (l *Log) locate(index uint64, out *raft.Log) (span, error) {
	for {
		l.mu.RLock()
		if l.closed {
			l.mu.RUnlock()
			return span{}, ErrClosed
		}
		// Raft asks for the term of the entry that the log was begun after. Were it
		// entry 1, it could also be asked for to be sent: it is not here for that.
		if index == l.prev.index && index+1 == l.first && index > 1 && l.prev.term > 0 {
			*out = raft.Log{Index: index, Term: l.prev.term, Type: raft.LogNoop}
			l.mu.RUnlock()
			return span{}, nil
		}
		if index < l.first || index > l.last {
			l.mu.RUnlock()
			return span{}, raft.ErrLogNotFound
		}
		s := l.findSegment(index)
		sp := span{segment: s.first, index: index, gen: l.gen}
		if s.file != nil {
			sp.off, sp.end = bounds(s.offsets, s.size, index-s.first)
			sp.file = s.file.retain()
			l.mu.RUnlock()
			return sp, nil
		}
		id, first, last, size := s.id, s.first, s.last, s.size
		l.mu.RUnlock()
		c, err := l.cold.get(id, first, func(c *coldSegment) error { return l.index(c, last, size) })
		if err == nil {
			sp.off, sp.end = bounds(c.offsets, size, index-first)
			sp.file = c.file
			return sp, nil
		}
		if l.generation() == sp.gen {
			return span{}, l.failure.set(err)
		}
	}
}

// bounds returns where the i-th entry begins and ends.
func bounds(offsets []uint32, size int64, i uint64) (off, end int64) {
	end = size
	if i+1 < uint64(len(offsets)) {
		end = int64(offsets[i+1])
	}
	return int64(offsets[i]), end
}

func (l *Log) corrupt(segment uint64, off int64, index uint64, expected, found string, err error) *CorruptError {
	return &CorruptError{Dir: l.p.dir, Segment: relSegment(segment), Offset: off, Index: index, Expected: expected, Found: found, Err: err}
}

// readFrame reads one frame into buf, which has its size, and checks all of it.
func (l *Log) readFrame(sp span, buf []byte, out *raft.Log) error {
	if n, err := sp.file.ReadAt(buf, sp.off); n < len(buf) {
		if err == nil || errors.Is(err, io.EOF) {
			return l.corrupt(sp.segment, sp.off, sp.index, fmt.Sprintf("a frame of %d bytes", len(buf)), fmt.Sprintf("the end of the file after %d", n), nil)
		}
		return l.corrupt(sp.segment, sp.off, sp.index, "readable bytes", err.Error(), err)
	}
	// The reader only looks at this one frame: its neighbours are not its business.
	sc := scanner{r: nil, size: int64(len(buf)), next: sp.index, buf: buf}
	h, body, bad := sc.frame()
	if bad == nil && sc.off != int64(len(buf)) {
		bad = &flaw{index: sp.index, expected: fmt.Sprintf("a frame of %d bytes", len(buf)), found: fmt.Sprintf("one of %d", sc.off)}
	}
	if bad != nil {
		return l.corrupt(sp.segment, sp.off+bad.offset, bad.index, bad.expected, bad.found, bad.err)
	}
	h.entry(body, out)
	return nil
}

// coldSegment is a finished segment that is being read.
type coldSegment struct {
	id, first uint64
	file      *handle
	offsets   []uint32
	used      uint64
	once      sync.Once
	err       error
}

// coldCache keeps the segments that were read last. Safe for concurrent use;
// readers of a segment that is being indexed wait for that alone.
type coldCache struct {
	mu    sync.Mutex
	clock uint64
	items []*coldSegment

	made  sync.Once
	turns chan struct{}
}

// enter waits until fewer than half of the processors copy and check frames, and returns how to
// leave again. Readers behind the end are many and can wait; there is one writer, and
// whoever waits for its sync needs a processor as soon as that is over.
func (c *coldCache) enter() (leave func()) {
	c.made.Do(func() { c.turns = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)) })
	c.turns <- struct{}{}
	return func() { <-c.turns }
}

// get returns the segment, indexed, with its file retained for the caller.
func (c *coldCache) get(id, first uint64, index func(*coldSegment) error) (*coldSegment, error) {
	for {
		item := c.item(id, first)
		item.once.Do(func() { item.err = index(item) })
		if errors.Is(item.err, errDropped) {
			continue
		}
		if item.err != nil {
			c.remove(func(s *coldSegment) bool { return s == item })
			return nil, item.err
		}
		c.mu.Lock()
		for _, s := range c.items {
			if s == item {
				item.file.retain()
				c.mu.Unlock()
				return item, nil
			}
		}
		c.mu.Unlock() // pushed out meanwhile: again
	}
}

func (c *coldCache) item(id, first uint64) *coldSegment {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clock++
	for _, s := range c.items {
		if s.id == id {
			s.used = c.clock
			return s
		}
	}
	item := &coldSegment{id: id, first: first}
	c.addLocked(item)
	return item
}

// put takes over a segment that has just been finished, index and file.
func (c *coldCache) put(id, first uint64, file *handle, offsets []uint32) {
	item := &coldSegment{id: id, first: first, file: file, offsets: offsets}
	item.once.Do(func() {})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clock++
	c.addLocked(item)
}

func (c *coldCache) addLocked(item *coldSegment) {
	item.used = c.clock
	if len(c.items) >= coldSegments {
		oldest := 0
		for i, s := range c.items {
			if s.used < c.items[oldest].used {
				oldest = i
			}
		}
		c.items[oldest].drop()
		c.items[oldest] = item
		return
	}
	c.items = append(c.items, item)
}

// drop gives up the cache's own use of the file, once it has one.
func (s *coldSegment) drop() {
	s.once.Do(func() { s.err = errDropped })
	if s.file != nil {
		_ = s.file.release() // opened for reading: closing it has nothing to tell
	}
}

// errDropped is what a segment holds that was pushed out before it was indexed.
var errDropped = errors.New("pushed out of the cache")

func (c *coldCache) remove(which func(*coldSegment) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := c.items[:0]
	for _, s := range c.items {
		if which(s) {
			s.drop()
			continue
		}
		kept = append(kept, s)
	}
	clear(c.items[len(kept):])
	c.items = kept
}

func (c *coldCache) clear() { c.remove(func(*coldSegment) bool { return true }) }

// index opens a finished segment and finds its entries by hopping over their headers.
func (l *Log) index(c *coldSegment, last uint64, size int64) error {
	f, err := l.files.Open(l.p.segment(c.first), os.O_RDONLY)
	if err != nil {
		return l.corrupt(c.first, -1, c.first, "a segment that can be opened", err.Error(), err)
	}
	sc := newScanner(f, size, c.first)
	sc.hop = true
	offsets := make([]uint32, 0, last-c.first+1)
	for !sc.done() {
		at := sc.off
		if _, _, bad := sc.frame(); bad != nil {
			f.Close()
			return l.corrupt(c.first, bad.offset, bad.index, bad.expected, bad.found, bad.err)
		}
		offsets = append(offsets, uint32(at))
	}
	if sc.next != last+1 {
		f.Close()
		return l.corrupt(c.first, sc.off, sc.next, fmt.Sprintf("entries up to %d", last), fmt.Sprintf("the end after entry %d", sc.next-1), nil)
	}
	c.file, c.offsets = newHandle(f), offsets
	return nil
}
