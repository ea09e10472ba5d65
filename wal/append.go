package wal

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/hashicorp/raft"
	"github.com/tidwall/wal"
)

const (
	// writeBytes is about how much is given to the library at a time. A large group goes in
	// several writes: its buffers stay small, and are never made anew.
	writeBytes = 1 << 20
	// keptBuffers is how large the buffer of an entry may be to be used again.
	keptBuffers = 4 << 20
	// libraryMemory is after how many ended segments the library is opened anew,
	// to forget the names of all that are long gone.
	libraryMemory = 4096
)

// pending is what a group of entries makes of one segment, before it is true.
type pending struct {
	first, last uint64
	size        int64
	offsets     []uint32
	chain       uint32
	lastCRC     uint32
}

// StoreLog stores one entry, as StoreLogs does.
func (l *Log) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

// StoreLogs appends entries, which must follow the last one; an empty log begins
// with whatever comes, or after its snapshot if it has one. When it returns nil they are durable, after
// one sync (more when a segment ends). After an error of the system the log has failed
// and every later call returns that first error. ErrOutOfOrder and ErrTooLarge
// refuse the group before anything was written. It keeps references to the
// entries' Data: they must not be changed afterwards.
func (l *Log) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	l.store.Lock()
	defer l.store.Unlock()
	if err := l.failure.get(); err != nil {
		return err
	}
	l.watchdog.begin()
	defer l.watchdog.end()
	began := time.Now()
	if err := l.admit(logs); err != nil {
		return err
	}
	plan, bytes, err := l.write(logs)
	if err != nil {
		return l.fail("appending", l.p.segment(plan[len(plan)-1].first), err)
	}
	file, err := l.settle(plan)
	if err != nil {
		return l.fail("appending", l.p.segment(plan[len(plan)-1].first), err)
	}
	if err := l.writeMark(&plan[len(plan)-1]); err != nil {
		return l.fail("writing the mark", l.p.mark, err)
	}
	// The watchdog may have reported this very operation as hung: then the process is
	// ending, and nobody may take these entries for acknowledged.
	if err := l.failure.get(); err != nil {
		return err
	}
	l.publish(plan, file, logs)
	l.metrics.appended.Add(float64(len(logs)))
	l.metrics.appendedBytes.Add(float64(bytes))
	l.metrics.appendSeconds.Observe(time.Since(began).Seconds())
	if l.rolls >= libraryMemory {
		return l.reopenLibrary()
	}
	return nil
}

// admit refuses what cannot be stored, before anything is written, and begins an
// empty log where the entries begin.
func (l *Log) admit(logs []*raft.Log) error {
	for i, e := range logs {
		if e.Index != logs[0].Index+uint64(i) {
			return fmt.Errorf("%w: entry %d after %d", ErrOutOfOrder, e.Index, logs[i-1].Index)
		}
		if n := len(e.Data) + len(e.Extensions); n > MaxEntry {
			return fmt.Errorf("%w: entry %d has %d bytes, the most is %d", ErrTooLarge, e.Index, n, MaxEntry)
		}
	}
	l.mu.RLock()
	closed, first, last, prev, installed := l.closed, l.first, l.last, l.prev, l.installed
	l.mu.RUnlock()
	begin := logs[0].Index
	switch {
	case closed:
		return ErrClosed
	case begin == last+1 && (first <= last || installed.index != last || installed.index == 0 || installed == prev):
		return nil
	case begin == 0 || first <= last:
		return fmt.Errorf("%w: entry %d, but the log ends with %d", ErrOutOfOrder, begin, last)
	}
	before := termed{index: begin - 1}
	if installed.index == before.index {
		before = installed
	} else if prev.index > 0 {
		// Raft may believe in an end that an installed snapshot took.
		return fmt.Errorf("%w: entry %d, but the log begins after the snapshot of entry %d", ErrOutOfOrder, begin, prev.index)
	}
	return l.reset(before)
}

// write frames the entries and gives them to the library, about writeBytes at a time. It computes
// what the library makes of them: it ends a segment once its size reaches the limit, and before
// the first write if a reopened one is over it. No more than one new segment ever waits for the sync of
// the directory: a power cut could else leave the second name without the first. (But for an entry as large as
// a segment, behind a reopened one that is over its size.) After an error the plan ends with the segment that was being written.
func (l *Log) write(logs []*raft.Log) ([]pending, int64, error) {
	t := l.active
	p := pending{first: t.first, last: t.last, size: t.size, offsets: t.offsets, chain: t.chain, lastCRC: t.lastCRC}
	plan := make([]pending, 0, 2)
	roll := func() {
		plan = append(plan, p)
		p = pending{first: p.last + 1, last: p.last, lastCRC: p.lastCRC}
	}
	if p.size > l.cfg.SegmentSize {
		roll()
	}
	synced := syncMark{index: t.last, offset: t.size, crc: t.lastCRC}
	l.batch.Clear()
	var bytes, waiting int64
	flush := func() error {
		if waiting == 0 {
			return nil
		}
		waiting = 0
		return l.lib.WriteBatch(l.batch)
	}
	named := 0 // ended segments whose successors' names are durable
	for i, e := range logs {
		var crc uint32
		if ends := p.size+diskSize(len(e.Data)+len(e.Extensions)) >= l.cfg.SegmentSize; ends && len(plan) > named {
			if err := flush(); err != nil {
				return append(plan, p), bytes, err
			}
			if err := l.files.SyncDir(l.p.segments); err != nil {
				return append(plan, p), bytes, err
			}
			named = len(plan)
		}
		l.scratch, crc = appendFrame(l.scratch[:0], e, synced)
		l.batch.Write(e.Index, l.scratch)
		n := int64(uvarintLen(uint64(len(l.scratch))) + len(l.scratch))
		p.offsets = append(p.offsets, uint32(p.size))
		p.size += n
		p.last, p.chain, p.lastCRC = e.Index, chainOn(p.chain, crc), crc
		bytes += n
		waiting += n
		if waiting >= writeBytes || i == len(logs)-1 {
			if err := flush(); err != nil {
				return append(plan, p), bytes, err
			}
		}
		if cap(l.scratch) > keptBuffers {
			l.batch, l.scratch = new(wal.Batch), nil
		}
		if p.size >= l.cfg.SegmentSize {
			roll()
		}
	}
	return append(plan, p), bytes, nil
}

// settle makes what the library has written durable, and checks that it wrote
// what was planned. It returns the file of a new last segment, if there is one.
func (l *Log) settle(plan []pending) (*handle, error) {
	tail, end := l.active.file, &plan[len(plan)-1]
	if len(plan) == 1 {
		if err := l.sync(tail); err != nil {
			return nil, err
		}
		return nil, checkSize(tail, end.size)
	}
	if err := checkSize(tail, plan[0].size); err != nil {
		return nil, err
	}
	f, err := l.files.Open(l.p.segment(end.first), os.O_RDWR)
	if err != nil {
		return nil, err
	}
	file := newHandle(f)
	// The library has synced every segment that it ended.
	if end.size > 0 {
		err = l.sync(file)
	}
	if err == nil {
		err = checkSize(file, end.size)
	}
	if err == nil {
		err = l.files.SyncDir(l.p.segments)
	}
	for i := range plan[:len(plan)-1] {
		if err == nil {
			err = l.manifest.appendSeal(seal{plan[i].first, plan[i].last, plan[i].size, plan[i].chain})
		}
	}
	if err != nil {
		return nil, errors.Join(err, file.release())
	}
	return file, nil
}

func (l *Log) sync(f *handle) error {
	began := time.Now()
	err := f.Sync()
	l.metrics.syncSeconds.Observe(time.Since(began).Seconds())
	return err
}

func checkSize(f File, want int64) error {
	got, err := f.Size()
	if err == nil && got != want {
		return fmt.Errorf("segment has %d bytes after the write, not %d", got, want)
	}
	return err
}

// writeMark notes that everything up to p's end is synced.
func (l *Log) writeMark(p *pending) error {
	return l.marks.write(mark{
		epoch: l.epoch, index: p.last, segment: p.first, offset: p.size, crc: p.lastCRC,
	})
}

// publish shows readers what has become durable.
func (l *Log) publish(plan []pending, file *handle, logs []*raft.Log) {
	l.ring.push(logs)
	l.mu.Lock()
	defer l.mu.Unlock()
	var grown int64
	for i := range plan {
		p := &plan[i]
		if i > 0 {
			l.active = &segment{id: l.newID(), first: p.first, last: p.last, before: l.active.before + l.active.size}
			l.segs = append(l.segs, l.active)
		}
		t := l.active
		grown += p.size - t.size
		t.last, t.size, t.chain, t.lastCRC = p.last, p.size, p.chain, p.lastCRC
		switch {
		case i == len(plan)-1:
			t.offsets = p.offsets
			if file != nil {
				t.file = file
			}
		case t.file != nil:
			l.cold.put(t.id, t.first, t.file, p.offsets)
			t.file, t.offsets = nil, nil
		}
	}
	l.rolls += len(plan) - 1
	l.last = logs[len(logs)-1].Index
	l.installed = termed{}
	l.bytes.Add(grown)
}

// reopenLibrary closes and opens the library. For holders of store.
func (l *Log) reopenLibrary() error {
	if err := l.lib.Close(); err != nil {
		return l.fail("closing", l.p.segments, err)
	}
	return l.openLibrary()
}

// openLibrary opens the library and holds what it sees against what we know.
func (l *Log) openLibrary() error {
	lib, err := wal.Open(l.p.segments, &wal.Options{
		NoSync: true, SegmentSize: int(l.cfg.SegmentSize), SegmentCacheSize: 1, NoCopy: true, AllowEmpty: true,
		DirPerms: 0o750, FilePerms: 0o640,
	})
	if err != nil {
		l.lib = nopLibrary{}
		return l.fail("opening", l.p.segments, err)
	}
	l.lib, l.rolls = lib, 0
	last, err := lib.LastIndex()
	if err == nil && last != l.active.last {
		err = fmt.Errorf("the library sees entries up to %d, not %d", last, l.active.last)
	}
	if err != nil {
		return l.fail("opening", l.p.segments, err)
	}
	return nil
}

// nopLibrary stands for one that could not be opened again: the log has failed
// by then and writes no more.
type nopLibrary struct{}

func (nopLibrary) WriteBatch(*wal.Batch) error { return ErrClosed }
func (nopLibrary) Close() error                { return nil }
