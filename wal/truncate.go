package wal

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// DeleteRange deletes entries lo to hi, both included, from the beginning or
// the end of the log.
//
// From the beginning (compaction): the first index moves at once, but not past the
// floor; what the floor holds goes when the floor lets it. Disk space comes back
// by whole segments, in the background. From the end (a conflict): at once and
// durably; ErrApplied if it would take an applied entry. Everything, after
// Installed: the log is emptied, and begins after the installed snapshot.
func (l *Log) DeleteRange(lo, hi uint64) error {
	l.store.Lock()
	defer l.store.Unlock()
	if err := l.failure.get(); err != nil {
		return err
	}
	l.mu.RLock()
	closed, first, last, installed := l.closed, l.first, l.last, l.installed
	l.mu.RUnlock()
	if closed {
		return ErrClosed
	}
	lo, hi = max(lo, first), min(hi, last)
	if lo > hi {
		return nil
	}
	applied := l.applied.Load()
	switch {
	case lo == first && hi == last && installed.index > 0:
		return l.timed(func() error { return l.reset(installed) })
	case hi == last && lo > applied && (lo > first || applied > 0):
		return l.timed(func() error { return l.cut(lo - 1) })
	case lo == first:
		l.compact(hi + 1)
		return nil
	case hi == last:
		return fmt.Errorf("%w: %d to %d, applied up to %d", ErrApplied, lo, hi, applied)
	}
	return fmt.Errorf("%w: %d to %d of %d to %d", ErrRange, lo, hi, first, last)
}

// timed runs a change of the log's end under the watchdog.
func (l *Log) timed(change func() error) error {
	l.watchdog.begin()
	defer l.watchdog.end()
	return change()
}

// compact moves the logical first index to what raft asks for and the floor allows.
func (l *Log) compact(asked uint64) {
	l.mu.Lock()
	l.asked = max(l.asked, asked)
	moved := l.advanceLocked()
	l.mu.Unlock()
	if moved {
		l.wantTrim()
	}
}

// advanceLocked moves the first index, and tells whether it did. For holders of mu.
func (l *Log) advanceLocked() bool {
	first := min(l.asked, l.floor, l.last+1)
	if first <= l.first {
		return false
	}
	l.first = first
	l.gen++
	l.ring.cutFront(first)
	return true
}

func (l *Log) wantTrim() {
	select {
	case l.trimWanted <- struct{}{}:
	default: // one is wanted already
	}
}

// trimLoop removes segments when there are some to remove, until Close.
func (l *Log) trimLoop() {
	for {
		select {
		case <-l.stop:
			return
		case <-l.trimWanted:
			if err := l.trim(); err != nil {
				_ = l.fail("trimming", l.p.dir, err)
				return
			}
		}
	}
}

// trim removes the finished segments that lie below the first index.
func (l *Log) trim() error {
	l.structure.Lock()
	defer l.structure.Unlock()
	if l.failure.get() != nil {
		return nil
	}
	l.mu.RLock()
	n := 0
	for n < len(l.segs)-1 && l.segs[n].last < l.first {
		n++
	}
	gone := l.segs[:n:n]
	first := l.segs[n].first
	l.mu.RUnlock()
	if n == 0 {
		return nil
	}
	if err := l.manifest.setFirst(first); err != nil {
		return err
	}
	var freed int64
	l.mu.Lock()
	for _, s := range gone {
		freed += s.size
	}
	l.segs = append([]*segment(nil), l.segs[n:]...)
	l.gen++
	l.mu.Unlock()
	l.cold.remove(func(c *coldSegment) bool { return c.first < first })
	for _, s := range gone {
		if err := l.files.Remove(l.p.segment(s.first)); err != nil {
			return err
		}
	}
	if err := l.files.SyncDir(l.p.segments); err != nil {
		return err
	}
	l.bytes.Add(-freed)
	if l.manifest.crowded() {
		// Only tidiness: on a full disk there may be no room for it, and that is no failure.
		if err := l.manifest.replace(func(_ *charter, seals []seal) []seal { return seals }); err != nil {
			l.log.Warn("wal manifest could not be tidied", "dir", l.p.dir, "error", err)
		}
	}
	return nil
}

// cut deletes the entries above last, durably. For holders of store.
func (l *Log) cut(last uint64) error {
	l.starts.forget()
	l.structure.Lock()
	defer l.structure.Unlock()
	end, at, err := l.cutPoint(last)
	if err != nil {
		return l.failure.set(err)
	}
	if err := l.lib.Close(); err != nil {
		return l.fail("closing", l.p.segments, err)
	}
	if err := l.cutFiles(last, at, &end); err != nil {
		return l.fail("cutting the end", l.p.dir, err)
	}
	return l.openLibrary()
}

// cutPoint finds the segment that the log will end with, its position and what it
// will hold. For holders of store and structure, who alone change the segments.
func (l *Log) cutPoint(last uint64) (pending, int, error) {
	at := len(l.segs) - 1
	for at > 0 && l.segs[at].first > last {
		at--
	}
	s := l.segs[at]
	p := pending{first: s.first, last: last}
	if last < s.first {
		return p, at, nil
	}
	// The segment is read again: its chain and last CRC up to here are not in memory.
	f, err := l.files.Open(l.p.segment(s.first), os.O_RDONLY)
	if err != nil {
		return p, at, l.corrupt(s.first, -1, last, "a segment that can be opened", err.Error(), err)
	}
	defer f.Close()
	sc := newScanner(f, s.size, s.first)
	for sc.next <= last {
		off := sc.off
		h, _, bad := sc.frame()
		if bad != nil {
			return p, at, l.corrupt(s.first, bad.offset, bad.index, bad.expected, bad.found, bad.err)
		}
		p.offsets = append(p.offsets, uint32(off))
		p.size, p.chain, p.lastCRC = sc.off, sc.chain, h.crc
	}
	return p, at, nil
}

// cutFiles does the steps of DESIGN.md, "Cut", and shows readers the shorter log.
func (l *Log) cutFiles(last uint64, at int, end *pending) error {
	// Readers first: nothing that is about to go is given out any more.
	l.mu.Lock()
	gone := l.segs[at+1:]
	kept := l.segs[at]
	var freed int64
	for _, s := range gone {
		freed += s.size
	}
	freed += kept.size - end.size
	tailFile := l.active.file
	l.active.file = nil
	l.active = kept
	l.segs = l.segs[: at+1 : at+1]
	*kept = segment{id: l.newID(), first: end.first, last: end.last, size: end.size, before: kept.before}
	l.last, l.first = last, min(l.first, last+1)
	l.gen++
	l.mu.Unlock()
	l.ring.cutBack(last)
	l.cold.remove(func(c *coldSegment) bool { return c.first >= end.first })

	err := l.manifest.replace(func(c *charter, seals []seal) []seal {
		c.epoch++
		c.synced = last
		l.epoch = c.epoch
		i := 0
		for i < len(seals) && seals[i].first < end.first {
			i++
		}
		return seals[:i]
	})
	for i := len(gone) - 1; i >= 0 && err == nil; i-- {
		if err = l.files.Remove(l.p.segment(gone[i].first)); err == nil {
			err = l.files.SyncDir(l.p.segments)
		}
	}
	if closing := tailFile.release(); err == nil {
		err = closing
	}
	if err != nil {
		return err
	}
	f, err := l.files.Open(l.p.segment(end.first), os.O_RDWR)
	if err != nil {
		return err
	}
	if err = f.Truncate(end.size); err == nil {
		err = f.Sync()
	}
	l.mu.Lock()
	kept.id = l.newID() // it will grow: what readers have indexed meanwhile is no index of that
	kept.file, kept.offsets, kept.chain, kept.lastCRC = newHandle(f), end.offsets, end.chain, end.lastCRC
	l.mu.Unlock()
	l.bytes.Add(-freed)
	if err == nil {
		err = l.writeMark(end)
	}
	return err
}

// reset empties the log, durably; it then begins after before. For holders of store.
func (l *Log) reset(before termed) error {
	l.starts.forget()
	l.structure.Lock()
	defer l.structure.Unlock()
	if err := l.lib.Close(); err != nil {
		return l.fail("closing", l.p.segments, err)
	}
	l.mu.Lock()
	file := l.active.file
	l.active.file = nil
	l.first, l.last = before.index+1, before.index
	l.prev, l.installed = before, termed{}
	l.asked = 0
	l.active = &segment{id: l.newID(), first: before.index + 1, last: before.index}
	l.segs = []*segment{l.active}
	l.gen++
	l.mu.Unlock()
	l.bytes.Store(0)
	l.ring.clear()
	l.cold.clear()
	err := file.release()
	if err == nil {
		file, err = l.resetFiles(before)
	}
	if err != nil {
		return l.fail("emptying", l.p.dir, err)
	}
	l.mu.Lock()
	l.active.file = file
	l.mu.Unlock()
	l.log.Info("wal emptied", "dir", l.p.dir, "first", before.index+1)
	return l.openLibrary()
}

// resetFiles does the steps of DESIGN.md, "Reset"; a new directory is made by
// them too. It returns the new segment's file.
func (l *Log) resetFiles(before termed) (*handle, error) {
	first := before.index + 1
	if err := l.manifest.replace(func(c *charter, _ []seal) []seal {
		l.epoch = c.epoch + 1
		*c = charter{
			seq: c.seq, epoch: c.epoch + 1, first: first, prevIndex: before.index, prevTerm: before.term,
			synced: before.index, resetting: true,
		}
		return nil
	}); err != nil {
		return nil, err
	}
	names, err := l.files.List(l.p.segments)
	if err != nil {
		return nil, err
	}
	for _, e := range names {
		if _, ok := parseSegment(e.Name()); !ok {
			continue
		}
		if err := l.files.Remove(filepath.Join(l.p.segments, e.Name())); err != nil {
			return nil, err
		}
	}
	if l.marks == nil {
		f, err := writeFile(l.files, l.p.dir, l.p.mark, newMarkFile())
		if err != nil {
			return nil, err
		}
		l.marks = &markFile{f: f, seq: 1}
	}
	f, err := l.files.Open(l.p.segment(first), os.O_CREATE|os.O_EXCL|os.O_RDWR)
	if err != nil {
		return nil, err
	}
	if err = f.Sync(); err == nil {
		err = l.files.SyncDir(l.p.segments)
	}
	if err == nil {
		err = l.manifest.replace(func(c *charter, _ []seal) []seal {
			c.resetting = false
			return nil
		})
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return newHandle(f), nil
}

var (
	_ raft.LogStore          = (*Log)(nil)
	_ raft.MonotonicLogStore = (*Log)(nil)
)
