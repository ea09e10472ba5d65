package wal

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Patched is what Patch did.
type Patched struct {
	// Entries were put in their places, in these segments (by their first entry).
	Entries  uint64
	Segments []uint64
	// Lacking are entries that are bad or missing and that the export has not.
	Lacking []Run
	// Quarantine is the place of the files that were replaced, relative to the directory; "" when nothing was.
	Quarantine string
}

// DifferentError refuses an export whose entry is not the one that the log lost.
type DifferentError struct {
	Index     uint64
	Log, Copy string
}

// Error says how the two differ.
func (e *DifferentError) Error() string {
	return fmt.Sprintf("entry %d is %s in the log and %s in the export: it is of another log, or of another time", e.Index, e.Log, e.Copy)
}

// Patch puts the entries of an export in the places of those that are bad or missing, and
// changes nothing else: the same index, term and checksum wherever the log still tells them. A segment
// is put in place whole, by rename. Segments that the export cannot make whole are left as they are, and told.
func (h *Held) Patch(x *Export, at time.Time) (*Patched, error) {
	s, err := h.survey()
	if err != nil {
		return nil, err
	}
	if s.charter.epoch == 0 {
		return nil, fmt.Errorf("%w: an import puts entries in, and cannot make a manifest", s.problem())
	}
	p := &patcher{h: h, s: s, x: x, out: &Patched{}, at: at}
	for _, want := range p.expected() {
		if err := p.segment(want); err != nil {
			return nil, fmt.Errorf("segment %s: %w", segmentName(want.first), err)
		}
	}
	if p.place == "" && len(s.foreign) == 0 {
		return p.out, nil
	}
	if err := p.prepare(); err != nil {
		return nil, err
	}
	sw := &swap{Quarantine: p.place, Replace: p.replace}
	for _, name := range s.foreign {
		sw.Remove = append(sw.Remove, filepath.Join(segmentsDir, name))
	}
	if err := h.begin(sw); err != nil {
		return nil, fmt.Errorf("beginning the import: %w", err)
	}
	p.out.Quarantine = p.place
	return p.out, h.carryOut(sw)
}

type patcher struct {
	h       *Held
	s       *survey
	x       *Export
	out     *Patched
	at      time.Time
	place   string
	replace []string
}

// expected is one segment as it should be.
type expectedSegment struct {
	first, last uint64
	tail        bool
	found       *surveyed
	seal        *seal
}

// expected lists the segments that the log should have: those that are there, and those
// that the seals, the mark and the gaps between tell of.
func (p *patcher) expected() []expectedSegment {
	s := p.s
	names := []uint64{s.charter.first}
	for _, sv := range s.segs {
		names = append(names, sv.first)
		if sv.seal != nil {
			names = append(names, sv.seal.last+1)
		}
	}
	for first := range s.seals {
		names = append(names, first)
	}
	if s.mark.segment > 0 {
		names = append(names, s.mark.segment)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	names = slices.DeleteFunc(names, func(n uint64) bool {
		there := slices.ContainsFunc(s.segs, func(sv surveyed) bool { return sv.first == n })
		return n > max(s.synced, s.charter.first) && !there
	})
	var list []expectedSegment
	for i, first := range names {
		e := expectedSegment{first: first, tail: i == len(names)-1, last: max(s.synced, first-1)}
		if sl, ok := s.seals[first]; ok {
			e.seal, e.last = &sl, sl.last
		} else if !e.tail {
			e.last = names[i+1] - 1
		}
		for j := range s.segs {
			if s.segs[j].first == first {
				e.found = &s.segs[j]
			}
		}
		list = append(list, e)
	}
	return list
}

// piece is where an entry's bytes come from.
type piece struct {
	off  int64
	n    int
	crc  uint32
	term uint64
	copy *exported
}

// segment checks one segment, and prepares a whole one if the export has what it lacks.
func (p *patcher) segment(want expectedSegment) error {
	var f File
	if want.found != nil {
		var err error
		if f, err = p.h.files.Open(p.h.p.segment(want.first), os.O_RDONLY); err != nil {
			return err
		}
		defer f.Close()
	}
	pieces, heads := p.own(f, want)
	if p.whole(want, pieces) {
		return nil
	}
	added := uint64(0)
	var lacking []Run
	for i := want.first; i <= want.last; i++ {
		if pieces[i-want.first].n > 0 {
			continue
		}
		c, ok := p.x.index[i]
		if !ok {
			if n := len(lacking); n > 0 && lacking[n-1].Last+1 == i {
				lacking[n-1].Last = i
			} else {
				lacking = append(lacking, Run{i, i})
			}
			continue
		}
		if h, ok := heads[i]; ok && (h.term != c.term || h.crc != c.crc) {
			return &DifferentError{i, fmt.Sprintf("of term %d with checksum %08x", h.term, h.crc), fmt.Sprintf("of term %d with checksum %08x", c.term, c.crc)}
		}
		pieces[i-want.first] = piece{n: c.n, crc: c.crc, term: c.term, copy: &c}
		added++
	}
	if len(lacking) > 0 {
		p.out.Lacking = append(p.out.Lacking, lacking...)
		return nil
	}
	if err := p.check(want, pieces); err != nil {
		return err
	}
	p.out.Entries += added
	p.out.Segments = append(p.out.Segments, want.first)
	return p.write(want, pieces, f)
}

// own finds the entries of a segment that are whole, and the headers of those whose bodies are not.
func (p *patcher) own(f File, want expectedSegment) ([]piece, map[uint64]header) {
	pieces := make([]piece, 0, 64)
	heads := map[uint64]header{}
	put := func(i uint64, pc piece) {
		for uint64(len(pieces)) <= i-want.first {
			pieces = append(pieces, piece{})
		}
		pieces[i-want.first] = pc
	}
	if f != nil {
		sc := newScanner(f, want.found.size, want.first)
		for !sc.done() {
			at := sc.off
			h, _, bad := sc.frame()
			if bad == nil {
				if want.tail || h.index <= want.last {
					put(h.index, piece{off: at, n: int(sc.off - at), crc: h.crc, term: h.term})
				}
				continue
			}
			if h, err := sc.headerAt(at); err == nil && h.index == sc.next {
				heads[h.index] = h
			}
			if _, _, ok := sc.resync(); !ok {
				break
			}
		}
	}
	if n := len(pieces); want.tail { // what lies behind a hole above the mark was never acknowledged
		for i := range n {
			if pieces[i].n == 0 && want.first+uint64(i) > want.last {
				pieces = pieces[:i]
				break
			}
		}
	}
	for uint64(len(pieces)) < want.last+1-want.first {
		pieces = append(pieces, piece{})
	}
	return pieces, heads
}

// headerAt decodes the header of the frame at a byte, if that is whole.
func (s *scanner) headerAt(off int64) (header, error) {
	b, err := s.window(off, uvarintLen(headerSize+MaxEntry)+headerSize)
	if err != nil {
		return header{}, err
	}
	_, n, err := decodePrefix(b)
	if err != nil {
		return header{}, err
	}
	return decodeHeader(b[n:])
}

// whole tells that a segment lacks nothing; entries that contradict its seal are taken for bad ones.
func (p *patcher) whole(want expectedSegment, pieces []piece) bool {
	for i := range pieces {
		if pieces[i].n == 0 {
			return false
		}
	}
	if want.found == nil && len(pieces) > 0 {
		return false
	}
	if p.check(want, pieces) == nil {
		return want.seal == nil || want.found.size == want.seal.size
	}
	clear(pieces)
	return false
}

// check holds a segment that is complete against its seal and the mark.
func (p *patcher) check(want expectedSegment, pieces []piece) error {
	var size int64
	var chain uint32
	var term uint64
	for i := range pieces {
		pc, index := &pieces[i], want.first+uint64(i)
		if pc.term < term {
			return &DifferentError{index, fmt.Sprintf("of term %d at least", term), fmt.Sprintf("of term %d", pc.term)}
		}
		size, chain, term = size+int64(pc.n), chainOn(chain, pc.crc), pc.term
		if m := p.s.mark; m.segment == want.first && m.index == index && (m.crc != pc.crc || m.offset != size) {
			return &DifferentError{
				index, fmt.Sprintf("one that ends at byte %d with checksum %08x", m.offset, m.crc),
				fmt.Sprintf("one that ends at byte %d with checksum %08x", size, pc.crc),
			}
		}
	}
	if sl := want.seal; sl != nil && (sl.size != size || sl.chain != chain || sl.last != want.first+uint64(len(pieces))-1) {
		return &DifferentError{
			sl.last, fmt.Sprintf("the last of %d bytes with chain %08x", sl.size, sl.chain),
			fmt.Sprintf("the last of %d bytes with chain %08x", size, chain),
		}
	}
	return nil
}

func (p *patcher) prepare() error {
	if p.place != "" {
		return nil
	}
	var err error
	if p.place, err = p.h.stage(p.at); err != nil {
		return fmt.Errorf("making room for the import: %w", err)
	}
	return nil
}

// write makes the new segment ready.
func (p *patcher) write(want expectedSegment, pieces []piece, f File) error {
	if err := p.prepare(); err != nil {
		return err
	}
	rel := relSegment(want.first)
	p.replace = append(p.replace, rel)
	return p.h.put(p.place, rel, func(out File) error {
		var at int64
		for _, pc := range pieces {
			b := make([]byte, pc.n)
			var err error
			if pc.copy != nil {
				b, err = p.x.bytes(*pc.copy)
			} else if got, bad := f.ReadAt(b, pc.off); got < pc.n {
				err = bad
			}
			if err != nil {
				return err
			}
			if _, err := out.WriteAt(b, at); err != nil {
				return err
			}
			at += int64(pc.n)
		}
		return nil
	})
}
