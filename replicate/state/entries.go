package state

import "forebay/internal/record"

// The kinds of entries. Blocks and parts of blocks (record.TagBlock,
// record.TagPart) are entries too; everything else is one of these. Each entry
// begins with its kind and a format version, and each says what it expects of
// the state: where that is not so, it is refused and changes nothing, the same
// on every node. No entry is larger than record.MaxEntry. Times ("At") are the
// leader's clock in Unix milliseconds: applying never reads a clock.

// Form is the first entry of a lane. A second one is refused.
type Form struct {
	LogID       LogID
	Gateway     string
	Lane, Lanes uint32
	Node        string
	Incarnation [16]byte
	At          int64
}

// Begin opens a leader's term. It expects a higher term than any before, and
// voids the unfinished parts of large blocks: the new leader starts them anew.
type Begin struct {
	Term uint64
	Node string
	At   int64
}

// Bases records where partitions begin, before their first fetch. Partitions
// that the state knows already under the same topic id are left as they are;
// another topic id is refused (that takes a TopicChange).
type Bases struct {
	Bases []record.Base
	At    int64
}

// Advance moves a partition's next offset without records. Every reason but
// record.AdvanceControl adds a gap. Unfinished parts of the partition are void.
type Advance struct {
	record.Advance
	At int64
}

// TopicChange replaces a topic's incarnation; it expects the old id. Unfinished
// parts of the topic are void. Suspect is the first index of the log that may
// hold records of the new incarnation under the old name (0: none, or not
// known): it is kept beside the change.
type TopicChange struct {
	record.TopicChange
	Suspect uint64
	At      int64
}

// Cut ends the open batch. It expects Term to be the state's, Seq to be the next
// sequence number, and the open batch to hold at least one record.
type Cut struct {
	Term, Seq uint64
	At        int64
}

// SinkAdd gives a sink its cursor: the oldest batch that the state has, or the
// next one to be cut. It expects the name to be unknown.
type SinkAdd struct {
	Name        string
	Destination string
	Newest      bool
	At          int64
}

// SinkRemove forgets a sink. It expects the cursor to be GivesUpFrom.
type SinkRemove struct {
	Name        string
	GivesUpFrom uint64
	At          int64
}

// SinkPause pauses or resumes a sink, for all leaders to come.
type SinkPause struct {
	Name   string
	Paused bool
	At     int64
}

// Done moves a sink's cursor past a batch. It expects Term to be the state's and
// the cursor to be Seq, a batch that has been cut.
type Done struct {
	record.Done
	Term uint64
}

// Refuse leaves records out of a batch for one sink, before the sink makes the
// batch durable. It expects Term to be the state's and the sink's cursor to be
// Seq. Records that are left out already are not counted again.
type Refuse struct {
	Sink      string
	Term, Seq uint64
	// Drop forgets the records; otherwise they are parked.
	Drop     bool
	Refusals []RefusedRecord
	At       int64
}

// RefusedRecord is a refusal with the log entries that hold the record.
type RefusedRecord struct {
	record.Refusal
	// Indexes are the entry, or the parts in order, whose block holds the record.
	Indexes []uint64
	Bytes   int64
}

// Copy appends a parked record's bytes again, so that the floor may pass its old
// place. Data is a block holding just that record, or, when Parts is more than 1,
// the Part-th piece of the bytes of such a block ([Copies] cuts them); the
// reference moves when the last part is applied. Checksum is the CRC-32C of the
// block. It expects the parked ID, and part i to follow part i-1 of the same
// block in the same term. A record may be copied again.
type Copy struct {
	ID          uint64
	Part, Parts uint32
	Checksum    uint32
	Data        []byte
}

// Discard forgets parked records for good.
type Discard struct {
	IDs []uint64
	At  int64
}

// Release lets delivered batches up to Seq go. It expects Term to be the
// state's; it never reaches past a batch that a sink still needs, nor one that
// holds a parked record which was not copied: it stops short of them, and is
// refused when that leaves nothing to release.
type Release struct {
	Term, Seq uint64
	At        int64
}

// Void makes batches without records of all numbers up to Seq: they were given to
// batches that a repair of the log has lost, and sinks may hold those. The open batch keeps
// its records, and gets the number after them. It expects Term to be the state's, Seq not to be used yet,
// and no more than [MaxVoid] numbers to be void at once.
type Void struct {
	Term, Seq uint64
	At        int64
}

// Set writes an administrative value; an empty Value removes it. It expects
// bounds: [MaxKey], [MaxValue], [MaxValues].
type Set struct {
	Key, Value string
}
