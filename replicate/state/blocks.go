package state

import (
	"math"
	"slices"

	"forebay/internal/record"
)

// openBatch is what was accepted since the last cut. Indexes above after belong
// to it; first is the smallest of them that holds accepted records, last the
// one that completed the newest block; both are 0 while there is none.
type openBatch struct {
	records, bytes     int64
	after, first, last uint64
	// skip are the refused and void indexes from start() on, growing; early
	// the parts at or before after whose block was accepted in this batch.
	skip, early []uint64
	touched     []*partition // that have runs
}

// largeBlock is a block whose parts have begun to come.
type largeBlock struct {
	spans      []record.Span
	parts      int
	indexes    []uint64 // of the parts that came
	partitions []*partition
}

// No block holds more than this: a summary that says so is broken, and sums
// must not overflow.
const maxBlockRecords, maxBlockBytes = 1 << 32, 1 << 44

func (s *State) applyBlock(index uint64, sum *record.Summary) error {
	err := s.takeBlock(index, sum)
	if err != nil {
		s.skip(index)
	}
	return err
}

func (s *State) takeBlock(index uint64, sum *record.Summary) error {
	if !s.formed {
		return errNotFormed()
	}
	if sum.Parts != 0 && sum.Part > 0 {
		return s.takeLaterPart(index, sum)
	}
	partitions, err := s.check(index, sum.Spans)
	if err != nil {
		return err
	}
	if sum.Parts == 0 {
		s.accept(sum.Spans, partitions)
		s.open.extend(index, index)
		return nil
	}
	for _, p := range partitions {
		if p.pending != nil {
			s.void(p.pending)
		}
	}
	b := &largeBlock{
		spans: slices.Clone(sum.Spans), parts: sum.Parts,
		indexes: append(make([]uint64, 0, min(sum.Parts, 64)), index), partitions: slices.Clone(partitions),
	}
	for _, p := range partitions {
		p.pending = b
	}
	s.large = append(s.large, b)
	s.finish(b)
	return nil
}

func (s *State) takeLaterPart(index uint64, sum *record.Summary) error {
	if len(sum.Spans) == 0 {
		return refused("a part without spans")
	}
	first := &sum.Spans[0]
	p := s.partition(first.Topic, first.Partition)
	if p == nil || p.pending == nil {
		return refused("part %d of %d of %q/%d follows none", sum.Part, sum.Parts, first.Topic, first.Partition)
	}
	b := p.pending
	if b.parts != sum.Parts || !slices.Equal(b.spans, sum.Spans) {
		return refused("part %d of %d of %q/%d is of another block than the parts before it", sum.Part, sum.Parts, first.Topic, first.Partition)
	}
	if sum.Part != len(b.indexes) {
		return refused("part %d of %d of %q/%d came when part %d was due", sum.Part, sum.Parts, first.Topic, first.Partition, len(b.indexes))
	}
	b.indexes = append(b.indexes, index)
	s.finish(b)
	return nil
}

// finish accepts a large block when its last part has come.
func (s *State) finish(b *largeBlock) {
	if len(b.indexes) < b.parts {
		return
	}
	s.forget(b)
	s.accept(b.spans, b.partitions)
	last := b.indexes[len(b.indexes)-1]
	for _, i := range b.indexes {
		if i > s.open.after {
			s.open.extend(i, last)
		} else {
			s.open.early = append(s.open.early, i)
		}
	}
}

// check finds the partitions of a block, all of which must stand at its bases.
// The slice is valid until the next call.
func (s *State) check(index uint64, spans []record.Span) ([]*partition, error) {
	if len(spans) == 0 {
		return nil, refused("a block without spans")
	}
	s.scratch = s.scratch[:0]
	for i := range spans {
		sp := &spans[i]
		p, err := s.at(sp.Topic, sp.Partition, sp.TopicID, sp.Base)
		if err != nil {
			return nil, err
		}
		if sp.First < sp.Base || sp.Last < sp.First || sp.Last == math.MaxInt64 ||
			sp.Records < 1 || sp.Records-1 > sp.Last-sp.First || sp.Records > maxBlockRecords ||
			sp.Bytes < 0 || sp.Bytes > maxBlockBytes {
			return nil, refused("%q/%d: %d records of %d bytes in %d to %d after %d cannot be",
				sp.Topic, sp.Partition, sp.Records, sp.Bytes, sp.First, sp.Last, sp.Base)
		}
		if p.seen == index {
			return nil, refused("%q/%d is in the block twice", sp.Topic, sp.Partition)
		}
		p.seen = index
		s.scratch = append(s.scratch, p)
	}
	return s.scratch, nil
}

// accept takes the records of a block into the open batch.
func (s *State) accept(spans []record.Span, partitions []*partition) {
	o := &s.open
	for i, p := range partitions {
		sp := &spans[i]
		if p.pending != nil {
			s.void(p.pending)
		}
		p.next = sp.Last + 1
		o.records += sp.Records
		o.bytes += sp.Bytes
		if len(p.runs) == 0 {
			o.touched = append(o.touched, p)
		}
		if n := len(p.runs); n > 0 && !p.split {
			p.runs[n-1].last = sp.Last
			continue
		}
		p.runs, p.split = append(p.runs, run{sp.First, sp.Last}), false
	}
}

// extend notes where accepted records lie.
func (o *openBatch) extend(first, last uint64) {
	if o.first == 0 || first < o.first {
		o.first = first
	}
	o.last = max(o.last, last)
}

// forget takes a large block from the unfinished ones.
func (s *State) forget(b *largeBlock) {
	for _, p := range b.partitions {
		p.pending = nil
	}
	if i := slices.Index(s.large, b); i >= 0 {
		s.large = slices.Delete(s.large, i, i+1)
	}
}

// void gives up an unfinished large block: readers leave out its parts.
func (s *State) void(b *largeBlock) {
	s.forget(b)
	for _, i := range b.indexes {
		if i > s.open.after {
			s.skip(i)
		}
	}
	s.pruneSkip()
}

// start is the smallest index that the batch after the next cut may begin with,
// 0 when nothing is there yet: what was refused before it needs no skipping.
func (s *State) start() uint64 {
	start := s.open.first
	for _, b := range s.large {
		for _, i := range b.indexes {
			if i > s.open.after {
				if start == 0 || i < start {
					start = i
				}
				break
			}
		}
	}
	return start
}

// skip notes an index that the readers of the open batch leave out.
func (s *State) skip(index uint64) {
	if start := s.start(); start != 0 && index > start {
		s.open.skip = insert(s.open.skip, index)
	}
}

func (s *State) pruneSkip() {
	start, skip := s.start(), s.open.skip
	n := len(skip)
	if start != 0 {
		n, _ = slices.BinarySearch(skip, start)
	}
	s.open.skip = slices.Delete(skip, 0, n)
}

// insert puts an index into a growing list, nearly always at the end.
func insert(list []uint64, index uint64) []uint64 {
	if n := len(list); n == 0 || list[n-1] < index {
		return append(list, index)
	}
	at, found := slices.BinarySearch(list, index)
	if found {
		return list
	}
	return slices.Insert(list, at, index)
}
