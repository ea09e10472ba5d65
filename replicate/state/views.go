package state

import (
	"maps"
	"slices"

	"forebay/internal/record"
)

// The views below are copies, or share what never changes: they are safe to
// keep, and their slices are only to be read.

// PartitionPosition is a partition and its position.
type PartitionPosition struct {
	Topic     string
	Partition int32
	record.Position
}

// Identity gives the first entry of the lane; false before it.
func (s *State) Identity() (Form, bool) { return s.form, s.formed }

// Term is the term of the last Begin, 0 before the first.
func (s *State) Term() uint64 { return s.term }

// Clock is the largest leader's time that an accepted entry carried, in Unix
// milliseconds.
func (s *State) Clock() int64 { return s.clock }

// AppliedIndex is the index of the last entry that was applied, refused ones too.
func (s *State) AppliedIndex() uint64 { return s.applied }

// Position tells where a partition goes on; false when it has no base yet.
func (s *State) Position(topic string, partition int32) (record.Position, bool) {
	p := s.partition(topic, partition)
	if p == nil {
		return record.Position{}, false
	}
	return record.Position{TopicID: p.topic.id, Next: p.next}, true
}

// Positions lists all positions, by topic and partition.
func (s *State) Positions() []PartitionPosition {
	var out []PartitionPosition
	for _, name := range s.Topics() {
		t := s.topics[name]
		for _, n := range slices.Sorted(maps.Keys(t.partitions)) {
			out = append(out, PartitionPosition{name, n, record.Position{TopicID: t.id, Next: t.partitions[n].next}})
		}
	}
	return out
}

// TopicID tells which incarnation of a topic the log holds.
func (s *State) TopicID(topic string) (record.TopicID, bool) {
	if t := s.topics[topic]; t != nil {
		return t.id, true
	}
	return record.TopicID{}, false
}

// Topics lists the topics that have positions, sorted.
func (s *State) Topics() []string { return slices.Sorted(maps.Keys(s.topics)) }

// Open tells what was accepted since the last cut.
func (s *State) Open() record.OpenBatch {
	return record.OpenBatch{Seq: s.lastSeq + 1, Records: s.open.records, Bytes: s.open.bytes, LastCutAt: s.lastCutAt}
}

// LastSeq is the newest batch that was cut, 0 before the first.
func (s *State) LastSeq() uint64 { return s.lastSeq }

// FirstSeq is the oldest batch that is kept, LastSeq()+1 when none is.
func (s *State) FirstSeq() uint64 { return s.released() + 1 }

// Released is the newest batch that was let go, 0 when none was.
func (s *State) Released() uint64 { return s.released() }

// Needed is the first index that anything but batches up to seq needs: Floor, were they released. Parked
// records that were not copied are needed, wherever they lie.
func (s *State) Needed(seq uint64) uint64 {
	needed := s.floorFrom(seq)
	for i := range s.parked.refs {
		needed = min(needed, s.parked.refs[i].Indexes[0])
	}
	return needed
}

// Batch describes a batch that was cut and not released.
func (s *State) Batch(seq uint64) (record.BatchInfo, bool) {
	b := s.batch(seq)
	if b == nil {
		return record.BatchInfo{}, false
	}
	return record.BatchInfo{
		ID:    record.BatchID{Lane: s.form.Lane, Seq: seq},
		CutAt: b.cutAt, Records: b.records, Bytes: b.bytes,
		FirstIndex: b.first, LastIndex: b.last, Ranges: b.ranges,
	}, true
}

// Batches describes up to limit kept batches from number from on, oldest first.
func (s *State) Batches(from uint64, limit int) []record.BatchInfo {
	var out []record.BatchInfo
	for seq := max(from, s.FirstSeq()); seq <= s.lastSeq && len(out) < limit; seq++ {
		b, _ := s.Batch(seq)
		out = append(out, b)
	}
	return out
}

// Layout tells which log entries make up a kept batch.
func (s *State) Layout(seq uint64) (Layout, bool) {
	b := s.batch(seq)
	if b == nil {
		return Layout{}, false
	}
	return Layout{FirstIndex: b.first, LastIndex: b.last, Skip: b.skip, Early: b.early}, true
}

// Sinks lists the sinks, by name.
func (s *State) Sinks() []record.SinkState {
	out := make([]record.SinkState, 0, len(s.sinks))
	for _, k := range s.sinks {
		out = append(out, k.view())
	}
	return out
}

// Sink tells the state of one sink.
func (s *State) Sink(name string) (record.SinkState, bool) {
	if i, found := s.sinkAt(name); found {
		return s.sinks[i].view(), true
	}
	return record.SinkState{}, false
}

func (k *sink) view() record.SinkState {
	return record.SinkState{
		Name: k.name, Cursor: k.cursor, Paused: k.paused, Destination: k.destination,
		Parked: k.parked, Dropped: k.dropped,
	}
}

// Dones lists the deliveries of a kept batch, by sink.
func (s *State) Dones(seq uint64) []record.Done {
	b := s.batch(seq)
	if b == nil {
		return nil
	}
	out := make([]record.Done, 0, len(b.dones))
	for _, d := range b.dones {
		out = append(out, record.Done{Sink: d.sink, Seq: seq, Attempts: d.attempts, StartedAt: d.startedAt, DoneAt: d.doneAt})
	}
	return out
}

// Excluded lists what recorded refusals leave out of the batch that a sink's
// cursor stands at, in order; nothing for any other batch.
func (s *State) Excluded(sink string, seq uint64) []record.RecordID {
	if i, found := s.sinkAt(sink); found && s.sinks[i].cursor == seq {
		return s.sinks[i].excluded.list()
	}
	return nil
}

// Gaps lists the newest MaxHistory gaps, oldest first.
func (s *State) Gaps() []record.Gap { return slices.Clone(s.gaps) }

// GapsForgotten counts the gaps that were too many to keep.
func (s *State) GapsForgotten() uint64 { return s.gapsForgotten }

// TopicChanges lists the newest MaxHistory topic changes, oldest first.
func (s *State) TopicChanges() []TopicReplaced { return slices.Clone(s.changes) }

// Dropped lists the newest MaxDropped dropped records, oldest first.
func (s *State) Dropped() []DroppedRecord { return slices.Clone(s.dropped) }

// Value gives an administrative value.
func (s *State) Value(key string) (string, bool) {
	v, ok := s.values[key]
	return v, ok
}
