package wal

import (
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"
)

// Progress of Verify.
type Progress struct {
	// Bytes of Total were read so far, and Entries found whole.
	Bytes, Total int64
	Entries      uint64
}

// Report is what Verify found.
type Report struct {
	// First and Last are the first and last whole entry, 0 if there is none.
	First, Last uint64
	// Entries are whole; Bytes were read.
	Entries  uint64
	Bytes    int64
	Segments int
	// Torn is a tail that was never acknowledged; nil if there is none. It is no damage.
	Torn *Torn
	// Damage is everything else that is wrong, in the order of the log; empty if the log is whole.
	Damage []*CorruptError
	// Runs are the whole entries, ascending: within a run none is missing.
	Runs []Run
}

// Run is a run of entries, both ends included.
type Run struct{ First, Last uint64 }

// maxDamage bounds a Report: beyond, more of the same helps nobody.
const maxDamage = 1000

// Verify reads and checks everything. Behind damage it goes on with the next
// whole frame. progress, if not nil, is called after each segment; an error of
// it ends the reading and is returned as it is.
func (r *Reader) Verify(progress func(Progress) error) (*Report, error) {
	return r.VerifyEntries(nil, progress)
}

// VerifyEntries is Verify, and passes each whole entry to visit, if that is not nil. Behind
// damage these may leave out some, and are not known to be what was acknowledged.
func (r *Reader) VerifyEntries(visit func(*Entry), progress func(Progress) error) (*Report, error) {
	rep := &Report{Segments: len(r.s.segs)}
	v := &verifier{r: r, rep: rep, visit: visit}
	rep.Damage = append(rep.Damage, r.s.damage...)
	p := Progress{}
	for _, sv := range r.s.segs {
		p.Total += sv.size
	}
	for i, sv := range r.s.segs {
		if err := v.segment(i, sv); err != nil {
			return nil, err
		}
		p.Bytes += sv.size
		p.Entries = rep.Entries
		if progress != nil {
			if err := progress(p); err != nil {
				return nil, err
			}
		}
	}
	rep.Bytes = p.Bytes
	return rep, nil
}

func (rep *Report) add(err error) error {
	var damage *CorruptError
	var torn *Torn
	switch {
	case errors.As(err, &damage):
		known := slices.ContainsFunc(rep.Damage, func(d *CorruptError) bool { return d.Index > 0 && d.Index == damage.Index })
		if !known && len(rep.Damage) < maxDamage {
			rep.Damage = append(rep.Damage, damage)
		}
	case errors.As(err, &torn):
		rep.Torn = torn
	default:
		return err
	}
	return nil
}

// verifier is one reading of the whole log.
type verifier struct {
	r     *Reader
	rep   *Report
	visit func(*Entry)
	entry Entry
	term  uint64 // of the last run
	buf   []byte
}

func (v *verifier) segment(i int, sv surveyed) error {
	r, rep := v.r, v.rep
	f, err := r.open(sv)
	if err != nil {
		return rep.add(err)
	}
	if f == nil {
		return nil
	}
	defer f.Close()
	sc := newScanner(f, sv.size, sv.first)
	sc.buf = v.buf[:0]
	defer func() { v.buf = sc.buf }()
	before := slices.Clone(rep.Runs)
	whole := true
	for !sc.done() {
		at := sc.off
		h, body, bad := sc.frame()
		if bad == nil {
			if err := v.frame(i, sv, at, sc.off, &h, body); err != nil {
				return err
			}
			continue
		}
		whole = false
		off, next, term := sc.off, sc.next, sc.term
		if err := rep.add(r.judge(sc, bad, i)); err != nil {
			return err
		}
		if rep.Torn != nil {
			break
		}
		// The judge may have looked ahead: from the bad frame on again.
		sc.off, sc.next, sc.term = off, next, term
		if _, _, ok := sc.resync(); !ok {
			break
		}
	}
	end := &scanned{last: sc.next - 1, end: sc.off, chain: sc.chain, torn: rep.Torn}
	if !whole && rep.Torn == nil {
		return nil // its end is known to be wrong
	}
	damage := r.s.checkEnd(i, end)
	if damage == nil {
		return nil
	}
	if damage.Offset < 0 {
		rep.Runs = before // each entry is whole, but they are not those that were finished
	}
	return rep.add(r.changedOr(damage))
}

// frame takes in a whole frame.
func (v *verifier) frame(i int, sv surveyed, at, end int64, h *header, body []byte) error {
	rep := v.rep
	rep.Entries++
	rep.Last = h.index
	if rep.First == 0 {
		rep.First = h.index
	}
	if err := v.r.checkMark(sv, end, h); err != nil {
		if rep.add(v.r.changedOr(err)) != nil {
			return ErrChanged
		}
		return nil
	}
	if i+1 < len(v.r.s.segs) && h.index >= v.r.s.segs[i+1].first {
		return nil // the next segment's: too long a segment was said already
	}
	if n := len(rep.Runs); n > 0 && rep.Runs[n-1].Last+1 == h.index && h.term >= v.term {
		rep.Runs[n-1].Last = h.index
	} else {
		rep.Runs = append(rep.Runs, Run{h.index, h.index})
	}
	v.term = h.term
	if v.visit != nil {
		var e raft.Log
		h.entry(body, &e)
		v.entry = Entry{
			Index: e.Index, Term: e.Term, Type: e.Type, Data: e.Data, Extensions: e.Extensions,
			CRC: h.crc, Segment: sv.first, Offset: at,
		}
		v.visit(&v.entry)
	}
	return nil
}

// checkMark holds the entry that the mark names against it.
func (r *Reader) checkMark(sv surveyed, end int64, h *header) *CorruptError {
	m := r.s.mark
	if m.segment != sv.first || m.index != h.index || m.offset == end && m.crc == h.crc {
		return nil
	}
	return r.s.corrupt(sv.first, end, h.index, fmt.Sprintf("the synced entry that ends at byte %d with checksum %08x", m.offset, m.crc),
		fmt.Sprintf("one that ends at byte %d with checksum %08x", end, h.crc), nil)
}
