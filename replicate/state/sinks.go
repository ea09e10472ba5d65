package state

import (
	"cmp"
	"math"
	"slices"

	"forebay/internal/record"
)

// MaxDropped is how many dropped records are remembered: the newest.
const MaxDropped = 100

// DroppedRecord is a record that a sink refused and that was dropped.
type DroppedRecord struct {
	Sink   string
	Batch  record.BatchID
	Record record.RecordID
	Reason string
	At     int64
}

type sink struct {
	name, destination string
	cursor            uint64
	paused            bool
	parked, dropped   int64
	// excluded is what refusals leave out of the batch at the cursor.
	excluded exclusions
}

func (s *State) sinkAt(name string) (int, bool) {
	return slices.BinarySearchFunc(s.sinks, name, func(k *sink, name string) int { return cmp.Compare(k.name, name) })
}

// sink gives a sink, or the refusal of an entry that needs it.
func (s *State) sink(name string) (*sink, error) {
	if i, found := s.sinkAt(name); found {
		return s.sinks[i], nil
	}
	return nil, refused("there is no sink %q", name)
}

func (s *State) applySinkAdd(e SinkAdd) error {
	if err := checkTime(e.At); err != nil {
		return err
	}
	if e.Name == "" {
		return refused("a sink needs a name")
	}
	i, found := s.sinkAt(e.Name)
	if found {
		return refused("sink %q is there already", e.Name)
	}
	cursor := s.released() + 1
	if e.Newest {
		cursor = s.lastSeq + 1
	}
	s.sinks = slices.Insert(s.sinks, i, &sink{name: e.Name, destination: e.Destination, cursor: cursor})
	s.tick(e.At)
	return nil
}

func (s *State) applySinkRemove(e SinkRemove) error {
	if err := checkTime(e.At); err != nil {
		return err
	}
	k, err := s.sink(e.Name)
	if err != nil {
		return err
	}
	if k.cursor != e.GivesUpFrom {
		return refused("sink %q needs batch %d next, not %d", e.Name, k.cursor, e.GivesUpFrom)
	}
	i, _ := s.sinkAt(e.Name)
	s.sinks = slices.Delete(s.sinks, i, i+1)
	for i := range s.batches {
		b := &s.batches[i]
		if at, found := b.doneAt(e.Name); found {
			b.dones = slices.Delete(b.dones, at, at+1)
		}
	}
	s.tick(e.At)
	return nil
}

func (s *State) applySinkPause(e SinkPause) error {
	if err := checkTime(e.At); err != nil {
		return err
	}
	k, err := s.sink(e.Name)
	if err != nil {
		return err
	}
	k.paused = e.Paused
	s.tick(e.At)
	return nil
}

// atCursor gives the sink of an entry that is about the batch at its cursor.
func (s *State) atCursor(name string, term, seq uint64) (*sink, error) {
	if err := s.checkTerm(term); err != nil {
		return nil, err
	}
	k, err := s.sink(name)
	if err != nil {
		return nil, err
	}
	if k.cursor != seq {
		return nil, refused("sink %q needs batch %d next, not %d", name, k.cursor, seq)
	}
	if seq > s.lastSeq {
		return nil, refused("batch %d has not been cut", seq)
	}
	return k, nil
}

func (b *batch) doneAt(sink string) (int, bool) {
	return slices.BinarySearchFunc(b.dones, sink, func(d done, sink string) int { return cmp.Compare(d.sink, sink) })
}

func (s *State) applyDone(e Done) error {
	if err := checkTime(e.DoneAt); err != nil {
		return err
	}
	k, err := s.atCursor(e.Sink, e.Term, e.Seq)
	if err != nil {
		return err
	}
	b := s.batch(e.Seq)
	i, _ := b.doneAt(e.Sink)
	b.dones = slices.Insert(b.dones, i, done{sink: k.name, attempts: e.Attempts, startedAt: e.StartedAt, doneAt: e.DoneAt})
	k.cursor++
	k.excluded = exclusions{}
	s.tick(e.DoneAt)
	return nil
}

func (s *State) applyRefuse(e Refuse) error {
	if err := checkTime(e.At); err != nil {
		return err
	}
	k, err := s.atCursor(e.Sink, e.Term, e.Seq)
	if err != nil {
		return err
	}
	b := s.batch(e.Seq)
	for i := range e.Refusals {
		r := &e.Refusals[i]
		if r.Bytes < 0 || r.Bytes > maxBlockBytes || r.Offset < 0 || r.Offset == math.MaxInt64 {
			return refused("a record at %d of %d bytes cannot be", r.Offset, r.Bytes)
		}
		if !e.Drop && !b.holds(r.Indexes) {
			return refused("batch %d does not hold the record %q/%d at %d in entries %d", e.Seq, r.Topic, r.Partition, r.Offset, r.Indexes)
		}
	}
	id := record.BatchID{Lane: s.form.Lane, Seq: e.Seq}
	for i := range e.Refusals {
		r := &e.Refusals[i]
		if t := s.topics[r.Topic]; t != nil {
			r.Topic = t.name // share memory
		}
		if !k.excluded.add(r.RecordID) {
			continue
		}
		if e.Drop {
			k.dropped++
			s.dropped = append(s.dropped, DroppedRecord{Sink: k.name, Batch: id, Record: r.RecordID, Reason: clip(r.Reason), At: e.At})
			continue
		}
		k.parked++
		s.parked.add(ParkedRef{Indexes: copied(r.Indexes), Parked: record.Parked{
			Sink: k.name, Batch: id, Record: r.RecordID, Reason: clip(r.Reason), Bytes: r.Bytes, At: e.At,
		}})
	}
	if over := len(s.dropped) - MaxDropped; over > 0 {
		s.dropped = slices.Delete(s.dropped, 0, over)
	}
	s.tick(e.At)
	return nil
}

// holds tells whether growing indexes are entries of the batch, the last of
// them within its bounds.
func (b *batch) holds(indexes []uint64) bool {
	for n, i := range indexes {
		if n > 0 && i <= indexes[n-1] {
			return false
		}
		if i < b.first {
			if _, early := slices.BinarySearch(b.early, i); !early {
				return false
			}
			continue
		}
		if _, skipped := slices.BinarySearch(b.skip, i); skipped || i > b.last {
			return false
		}
	}
	return len(indexes) > 0 && indexes[len(indexes)-1] >= b.first
}
