package state

import (
	"cmp"
	"slices"

	"forebay/internal/record"
)

// MaxRanges is how many ranges are kept in all: those of the newest batches. The
// ranges of older ones are forgotten, a whole batch at a time.
const MaxRanges = 65536

// batch is a batch that was cut. It never changes, but for its dones and for
// its ranges, which may be forgotten.
type batch struct {
	cutAt          int64
	records, bytes int64
	first, last    uint64
	skip, early    []uint64
	ranges         []record.Range
	dones          []done // by sink
	// hold is the first index that holds records of this batch or of a later
	// one: parts may lie far before the batch that they belong to.
	hold uint64
}

// done is a record.Done without the number of its batch.
type done struct {
	sink              string
	attempts          uint32
	startedAt, doneAt int64
}

// released is the newest batch that was let go, 0 when none was.
func (s *State) released() uint64 { return s.lastSeq - uint64(len(s.batches)) }

// batch gives a batch that was cut and not released, or nil.
func (s *State) batch(seq uint64) *batch {
	if seq <= s.released() || seq > s.lastSeq {
		return nil
	}
	return &s.batches[seq-s.released()-1]
}

func (s *State) applyCut(index uint64, e Cut) (uint64, error) {
	if !s.formed {
		return 0, errNotFormed()
	}
	if err := s.checkTerm(e.Term); err != nil {
		return 0, err
	}
	if err := checkTime(e.At); err != nil {
		return 0, err
	}
	if e.Seq != s.lastSeq+1 {
		return 0, refused("the next batch is %d, not %d", s.lastSeq+1, e.Seq)
	}
	if s.open.records == 0 {
		return 0, record.ErrNothingToCut
	}
	s.push(s.endOpen(e.At))
	s.open = openBatch{after: index, touched: s.open.touched[:0]}
	s.lastSeq++
	s.lastCutAt = s.batches[len(s.batches)-1].cutAt
	s.tick(e.At)
	s.stripRanges()
	return s.lastSeq, nil
}

// push appends a batch that was cut.
func (s *State) push(b batch) {
	b.hold = b.first
	if len(b.early) > 0 {
		b.hold = b.early[0]
	}
	for i := len(s.batches) - 1; i >= 0 && s.batches[i].hold > b.hold; i-- {
		s.batches[i].hold = b.hold
	}
	s.batches = append(s.batches, b)
}

// endOpen makes the open batch one that is cut, and clears the runs of its
// partitions.
func (s *State) endOpen(at int64) batch {
	o := &s.open
	for _, b := range s.large {
		for _, i := range b.indexes {
			if i > o.after {
				o.skip = insert(o.skip, i)
			}
		}
	}
	from, _ := slices.BinarySearch(o.skip, o.first)
	to, _ := slices.BinarySearch(o.skip, o.last)
	slices.Sort(o.early)
	return batch{
		cutAt:   max(at, s.lastCutAt+1),
		records: o.records, bytes: o.bytes,
		first: o.first, last: o.last,
		skip: copied(o.skip[from:to]), early: copied(o.early),
		ranges: o.ranges(),
	}
}

// copied is a list without spare room; nil when it is empty.
func copied[T any](list []T) []T {
	if len(list) == 0 {
		return nil
	}
	return append(make([]T, 0, len(list)), list...)
}

// ranges empties the runs of all partitions into ranges, by topic and partition.
func (o *openBatch) ranges() []record.Range {
	slices.SortFunc(o.touched, byPlace)
	n := 0
	for _, p := range o.touched {
		n += len(p.runs)
	}
	out := make([]record.Range, 0, n)
	for _, p := range o.touched {
		for _, r := range p.runs {
			out = append(out, record.Range{Topic: p.topic.name, Partition: p.number, First: r.first, Last: r.last})
		}
		p.runs, p.split = p.runs[:0], false
	}
	return out
}

func byPlace(a, b *partition) int {
	return cmp.Or(cmp.Compare(a.topic.name, b.topic.name), cmp.Compare(a.number, b.number))
}

// stripRanges forgets the ranges of the oldest batches while there are too many.
func (s *State) stripRanges() {
	s.ranges += len(s.batches[len(s.batches)-1].ranges)
	for s.ranges > MaxRanges {
		b := &s.batches[s.stripped]
		s.ranges -= len(b.ranges)
		b.ranges = nil
		s.stripped++
	}
}

// applyVoid appends batches without records. Each names the void's own entry, so that
// its reader finds an entry that holds none, and the floor stands where it would without them.
func (s *State) applyVoid(index uint64, e Void) error {
	if err := s.checkTerm(e.Term); err != nil {
		return err
	}
	if err := checkTime(e.At); err != nil {
		return err
	}
	if e.Seq <= s.lastSeq {
		return refused("batch %d was cut already", s.lastSeq)
	}
	if e.Seq-s.lastSeq > MaxVoid {
		return refused("%d batches cannot be made void at once, at most %d", e.Seq-s.lastSeq, MaxVoid)
	}
	for s.lastSeq < e.Seq {
		s.lastCutAt = max(e.At, s.lastCutAt+1)
		s.push(batch{cutAt: s.lastCutAt, first: index, last: index})
		s.lastSeq++
	}
	s.tick(e.At)
	return nil
}

func (s *State) applyRelease(e Release) error {
	if err := s.checkTerm(e.Term); err != nil {
		return err
	}
	if err := checkTime(e.At); err != nil {
		return err
	}
	released := s.released()
	if e.Seq <= released {
		return refused("batch %d was released already", released)
	}
	if e.Seq > s.lastSeq {
		return refused("batch %d has not been cut", e.Seq)
	}
	upTo, why := e.Seq, error(nil)
	for _, k := range s.sinks {
		if k.cursor <= upTo {
			upTo, why = k.cursor-1, refused("sink %q still needs batch %d", k.name, k.cursor)
		}
	}
	if seq, ok := s.parked.oldestBatch(); ok && seq <= upTo {
		upTo, why = seq-1, refused("batch %d holds parked records that were not copied", seq)
	}
	if upTo <= released {
		return why
	}
	s.drop(int(upTo - released))
	s.tick(e.At)
	return nil
}

// drop forgets the n oldest batches.
func (s *State) drop(n int) {
	for i := range s.batches[:n] {
		s.ranges -= len(s.batches[i].ranges)
	}
	clear(s.batches[:n])
	s.batches = s.batches[n:]
	s.stripped = max(0, s.stripped-n)
}

// Floor is the first index of the log that anything still needs: a kept batch,
// the open one, unfinished parts, copies of parked records. Everything below it
// may go. It is AppliedIndex()+1 when nothing is needed, and never falls.
func (s *State) Floor() uint64 { return s.floorFrom(s.released()) }

// floorFrom is the floor as if batches up to seq had been released.
func (s *State) floorFrom(seq uint64) uint64 {
	floor := s.applied + 1
	if b := s.batch(seq + 1); b != nil {
		floor = min(floor, b.hold)
	}
	if s.open.first != 0 {
		floor = min(floor, s.open.first)
	}
	if len(s.open.early) > 0 {
		floor = min(floor, slices.Min(s.open.early))
	}
	for _, b := range s.large {
		floor = min(floor, b.indexes[0])
	}
	return s.parked.floor(floor)
}
