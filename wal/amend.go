package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// Amendment is a log that is to take the place of one that is damaged.
type Amendment struct {
	// First to Last are the entries that stay, all of which must be whole; none when
	// Last is First-1.
	First, Last uint64
	// PrevTerm is the term of entry First-1, 0 if it is not known. It must be when no entry stays.
	PrevTerm uint64
	// Append are entries that follow Last.
	Append []*raft.Log
	// Remove names other files of the directory that speak of what goes.
	Remove []string
	// At names the place of what is taken out.
	At time.Time
}

// ErrNotWhole refuses an amendment, or an import, that would keep entries that are not whole. Nothing
// was changed.
var ErrNotWhole = errors.New("an entry that was to stay is not whole")

// Amend makes the log hold what a says, and nothing else. The files that change are not
// deleted but moved to the place that is returned, relative to the directory. Until Amend
// begins to move files an error means that nothing was changed; after that the log does not open
// before Finish has ended the work.
func (h *Held) Amend(a Amendment) (string, error) {
	s, err := h.survey()
	if err != nil {
		return "", err
	}
	b := &amender{h: h, s: s, a: a}
	if b.place, err = h.stage(a.At); err != nil {
		return "", fmt.Errorf("making room for the repair: %w", err)
	}
	if err := b.segments(); err != nil {
		return "", fmt.Errorf("preparing the repair: %w", err)
	}
	if err := b.papers(); err != nil {
		return "", fmt.Errorf("preparing the repair: %w", err)
	}
	sw := &swap{Quarantine: b.place, Replace: b.replace, Remove: b.remove()}
	if err := h.begin(sw); err != nil {
		return "", fmt.Errorf("beginning the repair: %w", err)
	}
	return b.place, h.carryOut(sw)
}

// survey looks at a directory in which nothing is under way.
func (h *Held) survey() (*survey, error) {
	if sw, err := readSwap(h.files, h.p); err != nil {
		return nil, err
	} else if sw != nil {
		return nil, ErrUnfinished
	}
	return takeSurvey(h.files, h.p)
}

// amender prepares an amendment: everything that is new is written under the place.
type amender struct {
	h       *Held
	s       *survey
	a       Amendment
	place   string
	replace []string
	kept    []uint64 // segments that stay, changed or not
	seals   []seal   // of those, the last included
	lastCRC uint32
	term    uint64
}

// segments decides what becomes of each segment, and writes those that change.
func (b *amender) segments() error {
	next := b.a.First
	for i, sv := range b.s.segs {
		if next > b.a.Last {
			break
		}
		if i+1 < len(b.s.segs) && b.s.segs[i+1].first <= next {
			continue
		}
		if sv.first > next {
			break
		}
		stop := b.a.Last
		if i+1 < len(b.s.segs) {
			stop = min(stop, b.s.segs[i+1].first-1)
		}
		last, err := b.segment(sv, next, stop)
		if err != nil {
			return err
		}
		next = last + 1
	}
	if next <= b.a.Last {
		return fmt.Errorf("%w: entry %d", ErrNotWhole, next)
	}
	if len(b.seals) == 0 {
		b.seals, b.kept = []seal{{first: b.a.First, last: b.a.First - 1}}, []uint64{b.a.First}
		if len(b.a.Append) == 0 {
			rel := relSegment(b.a.First)
			b.replace = append(b.replace, rel)
			return b.h.put(b.place, rel, func(File) error { return nil })
		}
	}
	return b.append()
}

// segment takes over the entries from first to stop, and tells the last that it has.
func (b *amender) segment(sv surveyed, first, stop uint64) (uint64, error) {
	f, err := b.h.files.Open(b.h.p.segment(sv.first), os.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	sc := newScanner(f, sv.size, sv.first)
	sl := seal{first: first, last: first - 1}
	var from, to int64
	for !sc.done() && sc.next <= stop {
		at := sc.off
		hd, _, bad := sc.frame()
		if bad != nil && sc.next < first { // damage in front of what stays
			if _, _, ok := sc.resync(); ok {
				continue
			}
		}
		if bad != nil {
			return 0, fmt.Errorf("%w: entry %d in %s: expected %s, found %s", ErrNotWhole, bad.index, segmentName(sv.first), bad.expected, bad.found)
		}
		if hd.index < first {
			continue
		}
		if hd.index != sl.last+1 || hd.term < b.term {
			return 0, fmt.Errorf("%w: entry %d", ErrNotWhole, sl.last+1)
		}
		if hd.index == first {
			from = at
		}
		to, sl.last, sl.chain = sc.off, hd.index, chainOn(sl.chain, hd.crc)
		b.lastCRC, b.term = hd.crc, hd.term
	}
	sl.size = to - from
	b.seals, b.kept = append(b.seals, sl), append(b.kept, first)
	if from == 0 && to == sv.size && first == sv.first {
		return sl.last, nil
	}
	rel := relSegment(first)
	b.replace = append(b.replace, rel)
	return sl.last, b.h.put(b.place, rel, func(out File) error { return copyBytes(out, f, from, to) })
}

// append writes the entries that follow into the last segment.
func (b *amender) append() error {
	if len(b.a.Append) == 0 {
		return nil
	}
	sl := &b.seals[len(b.seals)-1]
	rel := relSegment(sl.first)
	var frames []byte
	old := sl.size
	m := syncMark{index: sl.last, offset: old, crc: b.lastCRC}
	for _, e := range b.a.Append {
		if e.Index != sl.last+1 || e.Term < b.term {
			return fmt.Errorf("entry %d of term %d cannot follow entry %d of term %d", e.Index, e.Term, sl.last, b.term)
		}
		var frame []byte
		frame, b.lastCRC = appendFrame(nil, e, m)
		frames = append(binary.AppendUvarint(frames, uint64(len(frame))), frame...)
		sl.last, sl.chain, b.term = e.Index, chainOn(sl.chain, b.lastCRC), e.Term
	}
	sl.size += int64(len(frames))
	if !slices.Contains(b.replace, rel) {
		b.replace = append(b.replace, rel)
		if old > 0 {
			in, err := b.h.files.Open(b.h.abs(rel), os.O_RDONLY)
			if err != nil {
				return err
			}
			defer in.Close()
			if err := b.h.put(b.place, rel, func(out File) error { return copyBytes(out, in, 0, old) }); err != nil {
				return err
			}
		} else if err := b.h.put(b.place, rel, func(File) error { return nil }); err != nil {
			return err
		}
	}
	f, err := b.h.files.Open(b.h.abs(filepath.Join(b.place, stagedDir, rel)), os.O_RDWR)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(frames, old); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// papers writes the manifest and the mark of the new log: a new epoch, in which nothing is missing.
func (b *amender) papers() error {
	last := b.seals[len(b.seals)-1]
	c := b.s.charter
	c.seq++
	c.epoch = max(c.epoch, b.s.markEpoch) + 1
	if c.first != b.a.First {
		c.prevIndex, c.prevTerm = 0, 0
		if b.a.PrevTerm > 0 {
			c.prevIndex, c.prevTerm = b.a.First-1, b.a.PrevTerm
		}
	}
	c.first, c.synced, c.resetting = b.a.First, last.last, false
	finished := b.seals[:len(b.seals)-1]
	manifest := make([]byte, slotArea+len(finished)*sealSize)
	c.encode(manifest[c.seq%2*slotSize:])
	for i := range finished {
		finished[i].encode(manifest[slotArea+i*sealSize:])
	}
	marks := newMarkFile()
	(&mark{seq: 2, epoch: c.epoch, index: last.last, segment: last.first, offset: last.size, crc: b.lastCRC}).encode(marks)
	for name, text := range map[string][]byte{manifestName: manifest, markName: marks} {
		b.replace = append(b.replace, name)
		if err := b.h.put(b.place, name, func(f File) error { _, err := f.WriteAt(text, 0); return err }); err != nil {
			return err
		}
	}
	slices.Sort(b.replace)
	return nil
}

// remove lists what goes: segments that do not stay, foreign files among them, and what the caller named.
func (b *amender) remove() []string {
	gone := slices.Clone(b.a.Remove)
	for _, sv := range b.s.segs {
		if !slices.Contains(b.kept, sv.first) {
			gone = append(gone, relSegment(sv.first))
		}
	}
	for _, name := range slices.Concat(b.s.foreign, b.s.stale) {
		gone = append(gone, filepath.Join(segmentsDir, name))
	}
	return gone
}

// copyBytes copies the bytes from from to to of a file to the beginning of another.
func copyBytes(out, in File, from, to int64) error {
	buf := make([]byte, min(max(to-from, 1), scanWindow))
	for at := int64(0); from+at < to; {
		n := int(min(to-from-at, int64(len(buf))))
		if got, err := in.ReadAt(buf[:n], from+at); got < n {
			return fmt.Errorf("reading byte %d: %w", from+at, err)
		}
		if _, err := out.WriteAt(buf[:n], at); err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}
