package state

import (
	"cmp"
	"slices"

	"forebay/internal/record"
)

// ParkedOverhead is what each parked record counts in ParkedBytes besides its
// own bytes: what its reference takes, in the state and in each snapshot.
const ParkedOverhead = 256

// ParkedRef is a parked record and where its bytes are.
type ParkedRef struct {
	record.Parked
	// Indexes are the entry that holds the record's block, or the parts of it
	// in order. They are entries of kind Copy when Copied is true. See
	// [ParkedRef.Block].
	Indexes []uint64
	Copied  bool
}

// parkedRecords are the parked records of a lane, with the copies that have
// begun to come.
type parkedRecords struct {
	refs   []ParkedRef // by ID
	lastID uint64
	bytes  int64
	// copying holds, for each record of which not all parts have come, the
	// indexes of those that did.
	copying map[uint64]*copying
	// places are the first indexes of copied records, growing. Not replicated:
	// they follow from refs.
	places []uint64
}

type copying struct {
	parts    uint32
	checksum uint32
	indexes  []uint64
}

func (p *parkedRecords) find(id uint64) *ParkedRef {
	i, found := slices.BinarySearchFunc(p.refs, id, func(r ParkedRef, id uint64) int { return cmp.Compare(r.ID, id) })
	if !found {
		return nil
	}
	return &p.refs[i]
}

func (r *ParkedRef) size() int64 { return ParkedOverhead + r.Bytes }

// add parks a record under a number of its own.
func (p *parkedRecords) add(r ParkedRef) {
	p.lastID++
	r.ID = p.lastID
	p.refs = append(p.refs, r)
	p.bytes += r.size()
}

// oldestBatch is the oldest batch that holds a parked record not copied.
func (p *parkedRecords) oldestBatch() (seq uint64, found bool) {
	for i := range p.refs {
		if r := &p.refs[i]; !r.Copied && (!found || r.Batch.Seq < seq) {
			seq, found = r.Batch.Seq, true
		}
	}
	return seq, found
}

// floor is the first index that copies need, or limit if that is smaller.
// Records that were not copied are held by their batches; the parts of a copy
// that is not complete lie after the place that they copy, which is still held.
func (p *parkedRecords) floor(limit uint64) uint64 {
	if len(p.places) > 0 {
		limit = min(limit, p.places[0])
	}
	return limit
}

// leave takes the place of a record that is copied again, or discarded.
func (p *parkedRecords) leave(r *ParkedRef) {
	if at, found := slices.BinarySearch(p.places, r.Indexes[0]); found && r.Copied {
		p.places = slices.Delete(p.places, at, at+1)
	}
}

func (p *parkedRecords) voidCopies() { clear(p.copying) }

func (s *State) applyCopy(index uint64, e Copy) error {
	p := &s.parked
	ref := p.find(e.ID)
	if ref == nil {
		return refused("parked record %d is not there", e.ID)
	}
	if e.Part >= e.Parts || len(e.Data) == 0 {
		return refused("part %d of %d of %d bytes cannot be", e.Part, e.Parts, len(e.Data))
	}
	c := p.copying[e.ID]
	switch {
	case e.Part == 0: // anew, whatever came before
		c = &copying{parts: e.Parts, checksum: e.Checksum}
	case c == nil || c.parts != e.Parts || c.checksum != e.Checksum || len(c.indexes) != int(e.Part):
		return refused("part %d of %d of parked record %d does not follow the one before it", e.Part, e.Parts, e.ID)
	}
	c.indexes = append(c.indexes, index)
	if len(c.indexes) < int(c.parts) {
		if p.copying == nil {
			p.copying = map[uint64]*copying{}
		}
		p.copying[e.ID] = c
		return nil
	}
	delete(p.copying, e.ID)
	p.leave(ref)
	ref.Indexes, ref.Copied = copied(c.indexes), true
	p.places = insert(p.places, ref.Indexes[0])
	return nil
}

func (s *State) applyDiscard(e Discard) error {
	if err := checkTime(e.At); err != nil {
		return err
	}
	p := &s.parked
	gone := make(map[uint64]bool, len(e.IDs))
	for _, id := range e.IDs {
		if p.find(id) == nil {
			return refused("parked record %d is not there", id)
		}
		gone[id] = true
	}
	p.refs = slices.DeleteFunc(p.refs, func(r ParkedRef) bool {
		if !gone[r.ID] {
			return false
		}
		p.bytes -= r.size()
		p.leave(&r)
		delete(p.copying, r.ID)
		return true
	})
	s.tick(e.At)
	return nil
}

// Parked lists the parked records, by ID.
func (s *State) Parked() []ParkedRef { return slices.Clone(s.parked.refs) }

// ParkedRecord gives one parked record.
func (s *State) ParkedRecord(id uint64) (ParkedRef, bool) {
	if r := s.parked.find(id); r != nil {
		return *r, true
	}
	return ParkedRef{}, false
}

// ParkedBytes is what parked records take: their own bytes, and ParkedOverhead
// for each.
func (s *State) ParkedBytes() int64 { return s.parked.bytes }

// ToCopy lists up to limit parked records, by ID, that must be copied before
// batch seq can be released and the log be cut off below an index: those that
// lie in batches up to seq, and those whose last copy lies below the index.
// Each copy costs the record's bytes anew, so choose below with care: 0 asks
// for no copies of copies.
func (s *State) ToCopy(seq, below uint64, limit int) []ParkedRef {
	var out []ParkedRef
	for i := range s.parked.refs {
		if len(out) >= limit {
			break
		}
		r := &s.parked.refs[i]
		if (!r.Copied && r.Batch.Seq <= seq) || (r.Copied && r.Indexes[0] < below) {
			out = append(out, *r)
		}
	}
	return out
}
