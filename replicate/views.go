package replicate

import (
	"strings"

	"forebay/internal/record"
	"forebay/replicate/state"
)

// views are the questions that the replicated state answers, as it is on this
// node at this moment. All answers are copies.
type views struct{ m *machine }

func see[T any](v views, fn func(*state.State) T) T {
	v.m.mu.RLock()
	defer v.m.mu.RUnlock()
	return fn(v.m.st)
}

func see2[T, U any](v views, fn func(*state.State) (T, U)) (T, U) {
	v.m.mu.RLock()
	defer v.m.mu.RUnlock()
	return fn(v.m.st)
}

// Changed gives a channel that is closed when entries were applied after this
// call: ask first, then look, then wait.
func (v views) Changed() <-chan struct{} { return v.m.wait() }

// Identity is the first entry of the lane; false before it.
func (v views) Identity() (state.Form, bool) { return see2(v, (*state.State).Identity) }

// AppliedIndex is the last entry that the state took in.
func (v views) AppliedIndex() uint64 { return see(v, (*state.State).AppliedIndex) }

// Floor is the first entry of the log that anything still needs.
func (v views) Floor() uint64 {
	// The state tidies up while it looks.
	v.m.mu.Lock()
	defer v.m.mu.Unlock()
	return v.m.st.Floor()
}

// Position tells where the log wants a partition to go on; false when it has no base.
func (v views) Position(topic string, partition int32) (record.Position, bool) {
	return see2(v, func(st *state.State) (record.Position, bool) { return st.Position(topic, partition) })
}

// Positions lists all partitions, by topic and partition.
func (v views) Positions() []state.PartitionPosition { return see(v, (*state.State).Positions) }

// TopicID tells which incarnation of a topic the log holds.
func (v views) TopicID(topic string) (record.TopicID, bool) {
	return see2(v, func(st *state.State) (record.TopicID, bool) { return st.TopicID(topic) })
}

// Topics lists the topics that the log has positions of, sorted.
func (v views) Topics() []string { return see(v, (*state.State).Topics) }

// Open tells what was accepted since the last cut.
func (v views) Open() record.OpenBatch { return see(v, (*state.State).Open) }

// LastSeq is the newest batch that was cut, 0 before the first.
func (v views) LastSeq() uint64 { return see(v, (*state.State).LastSeq) }

// FirstSeq is the oldest batch that is kept; LastSeq+1 when none is.
func (v views) FirstSeq() uint64 { return see(v, (*state.State).FirstSeq) }

// Released is the newest batch that was let go.
func (v views) Released() uint64 { return see(v, (*state.State).Released) }

// Batch describes a batch that was cut and not released.
func (v views) Batch(seq uint64) (record.BatchInfo, bool) {
	return see2(v, func(st *state.State) (record.BatchInfo, bool) { return st.Batch(seq) })
}

// Batches describes up to limit kept batches from number from on, oldest first.
func (v views) Batches(from uint64, limit int) []record.BatchInfo {
	return see(v, func(st *state.State) []record.BatchInfo { return st.Batches(from, limit) })
}

// Layout tells which entries of the log a batch is made of.
func (v views) Layout(seq uint64) (state.Layout, bool) {
	return see2(v, func(st *state.State) (state.Layout, bool) { return st.Layout(seq) })
}

// Sinks lists the sinks, by name.
func (v views) Sinks() []record.SinkState { return see(v, (*state.State).Sinks) }

// Sink tells the state of one sink.
func (v views) Sink(name string) (record.SinkState, bool) {
	return see2(v, func(st *state.State) (record.SinkState, bool) { return st.Sink(name) })
}

// Dones lists the deliveries of a kept batch, by sink.
func (v views) Dones(seq uint64) []record.Done {
	return see(v, func(st *state.State) []record.Done { return st.Dones(seq) })
}

// Excluded lists what recorded refusals leave out of the batch that a sink's cursor stands at.
func (v views) Excluded(sink string, seq uint64) []record.RecordID {
	return see(v, func(st *state.State) []record.RecordID { return st.Excluded(sink, seq) })
}

// Parked lists the parked records, by ID.
func (v views) Parked() []state.ParkedRef { return see(v, (*state.State).Parked) }

// ParkedRecord tells where a parked record is.
func (v views) ParkedRecord(id uint64) (state.ParkedRef, bool) {
	return see2(v, func(st *state.State) (state.ParkedRef, bool) { return st.ParkedRecord(id) })
}

// ParkedBytes is what the parked records take, as parked.maxBytes counts them.
func (v views) ParkedBytes() int64 { return see(v, (*state.State).ParkedBytes) }

// Gaps lists the newest gaps, oldest first.
func (v views) Gaps() []record.Gap { return see(v, (*state.State).Gaps) }

// GapsForgotten counts the gaps that were too many to keep.
func (v views) GapsForgotten() uint64 { return see(v, (*state.State).GapsForgotten) }

// TopicChanges lists the newest topic changes, oldest first.
func (v views) TopicChanges() []state.TopicReplaced { return see(v, (*state.State).TopicChanges) }

// Retired lists the incarnations of topics that were replaced, of those changes: none
// of them comes again.
func (v views) Retired() []record.TopicID {
	changes := v.TopicChanges()
	ids := make([]record.TopicID, 0, len(changes))
	for _, c := range changes {
		ids = append(ids, c.Old)
	}
	return ids
}

// Dropped lists the newest dropped records, oldest first.
func (v views) Dropped() []state.DroppedRecord { return see(v, (*state.State).Dropped) }

// Value gives an administrative value.
func (v views) Value(key string) (string, bool) {
	return see2(v, func(st *state.State) (string, bool) { return st.Value(key) })
}

// Status is a lane at a glance.
type Status struct {
	// Role is "leader", "follower", "candidate" or "shutdown".
	Role string
	// Leader is the leading node's id, "" while none is known.
	Leader string
	// Term is Raft's.
	Term uint64
	// First and Last bound the log, 0 when it is empty. Floor is the first entry
	// that anything still needs, Applied the last one in the state, Snapshot the
	// newest snapshot's.
	First, Last, Floor, Applied, Snapshot uint64
	// Bytes is the size of the log, ParkedBytes what parked records take.
	Bytes, ParkedBytes int64
	// Held is why intake is held for want of room, "" when it is not or this node does not lead.
	Held string
}

// Status gives the lane as it is on this node.
func (l *Lane) Status() Status {
	s := Status{
		Role: strings.ToLower(l.raft.State().String()), Term: l.raft.CurrentTerm(),
		Floor: l.Floor(), Applied: l.AppliedIndex(), Bytes: l.store.Bytes(), ParkedBytes: l.ParkedBytes(),
	}
	_, leader := l.raft.LeaderWithID()
	s.Leader = string(leader)
	s.Held, _ = l.space.state()
	if newest, ok := l.snapshots.newest(); ok {
		s.Snapshot = newest.meta.Index
	}
	// A log that cannot tell its bounds has stopped, and has said so itself.
	s.First, s.Last, _ = bounds(l.store)
	return s
}
