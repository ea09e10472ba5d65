package record

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Record is one Kafka message. A nil Key or Value is not an empty one.
type Record struct {
	Topic     string
	Partition int32
	Offset    int64
	// Timestamp is in milliseconds since the Unix epoch, as the broker keeps
	// it; it may be negative or far in the future.
	Timestamp int64
	Key       []byte
	Value     []byte
	Headers   []Header
}

// Header is one header of a record. Kafka allows keys to repeat and a nil Value.
type Header struct {
	Key   []byte
	Value []byte
}

// TopicID is Kafka's identity of one incarnation of a topic: a topic deleted
// and made again under its old name has another.
type TopicID [16]byte

// Position is what the log knows of a partition: the incarnation of its topic
// and the offset that it needs next.
type Position struct {
	TopicID TopicID
	Next    int64
}

// Span is one partition's share of a block.
type Span struct {
	Topic     string
	TopicID   TopicID
	Partition int32
	// Base is the next offset of the partition that this block continues from;
	// First and Last are the offsets of its first and last record. Offsets
	// between Base and First, and between records, may be holes (compaction,
	// control records). After the block, next is Last+1.
	Base, First, Last int64
	Records           int64
	// Bytes counts keys, values and headers, uncompressed.
	Bytes int64
}

// Range is a run of offsets of one partition, both ends included.
type Range struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	First     int64  `json:"first"`
	Last      int64  `json:"last"`
}

// BatchID names a batch within a log: its lane and its sequence number, which
// starts at 1. Its text form is "<lane>-<20 digits>"; the zero value's is "".
type BatchID struct {
	Lane uint32
	Seq  uint64
}

// String gives the form used in file names, ledgers, the API and the page.
func (id BatchID) String() string {
	if id.Seq == 0 {
		return ""
	}
	return fmt.Sprintf("%d-%020d", id.Lane, id.Seq)
}

// ParseBatchID reads what String writes; the digits may be unpadded.
func ParseBatchID(s string) (BatchID, error) {
	lane, seq, ok := strings.Cut(s, "-")
	l, err1 := strconv.ParseUint(lane, 10, 32)
	q, err2 := strconv.ParseUint(seq, 10, 64)
	if !ok || err1 != nil || err2 != nil || q == 0 {
		return BatchID{}, fmt.Errorf("batch %q: want <lane>-<sequence>, as in 0-00000000000000000042", s)
	}
	return BatchID{Lane: uint32(l), Seq: q}, nil
}

// BatchInfo is what the replicated state keeps of a cut batch.
type BatchInfo struct {
	ID BatchID
	// CutAt is the leader's clock at the cut, in Unix milliseconds, raised so
	// that it grows strictly from batch to batch.
	CutAt   int64
	Records int64
	Bytes   int64
	// FirstIndex and LastIndex bound the log entries between the previous cut
	// and this one; refused and foreign entries among them are left out by
	// whoever reads the batch.
	FirstIndex, LastIndex uint64
	// Ranges is empty for an old batch of a log with very many partitions.
	Ranges []Range
}

// OpenBatch is what has been accepted since the last cut.
type OpenBatch struct {
	// Seq is the number that the next cut must carry.
	Seq     uint64
	Records int64
	Bytes   int64
	// LastCutAt is CutAt of the batch before, 0 when there is none.
	LastCutAt int64
}

// SinkState is the replicated part of a sink.
type SinkState struct {
	Name string
	// Cursor is the sequence number of the next batch that the sink needs.
	Cursor uint64
	Paused bool
	// Destination is the fingerprint of where the sink writes, taken when it
	// was added. An exactly-once sink whose destination changed is refused.
	Destination string
	// Parked and Dropped count records left out of batches, over all time.
	Parked, Dropped int64
}

// RecordID names a record within one gateway.
type RecordID struct { //nolint:revive // it stands beside BatchID, and "ID" would not say of what
	Topic     string
	Partition int32
	Offset    int64
}

// Refusal is a record that a sink cannot take, and why, in words for the
// operator.
type Refusal struct {
	RecordID
	Reason string
}

// Done reports a batch delivered to a sink. Times are Unix milliseconds.
type Done struct {
	Sink      string
	Seq       uint64
	Attempts  uint32
	StartedAt int64
	DoneAt    int64
}

// Parked is the durable reference to a record that a sink refused.
type Parked struct {
	// ID is unique within the lane and never used again.
	ID     uint64
	Sink   string
	Batch  BatchID
	Record RecordID
	Reason string
	Bytes  int64
	At     int64
}

// Base is the first offset of a partition, recorded before its first fetch.
type Base struct {
	Topic     string
	TopicID   TopicID
	Partition int32
	Next      int64
}

// AdvanceReason says why offsets are passed without records.
type AdvanceReason uint8

// Reasons of an advance. Control is the only one that is no gap.
const (
	// AdvanceControl passes control records, aborted records and compacted
	// holes at the end of a partition: nothing is missing.
	AdvanceControl AdvanceReason = iota + 1
	// AdvanceExpired passes offsets that Kafka had deleted before they were read.
	AdvanceExpired
	// AdvanceTruncated moves back to an end that Kafka lost (unclean election):
	// the only advance whose Next is below its Base.
	AdvanceTruncated
	// AdvanceSkipped passes what an operator chose to skip.
	AdvanceSkipped
)

// Advance moves a partition's next offset without records. It applies only
// when topic id and Base equal the state's.
type Advance struct {
	Topic     string
	TopicID   TopicID
	Partition int32
	Base      int64
	Next      int64
	Reason    AdvanceReason
}

// Gap is a range of offsets that Kafka no longer had when Forebay came for it.
type Gap struct {
	Topic       string
	TopicID     TopicID
	Partition   int32
	First, Last int64
	Reason      AdvanceReason
	At          int64
}

// TopicChange records that a topic was deleted and made again. Every partition
// of the new incarnation starts at 0.
type TopicChange struct {
	Topic    string
	Old, New TopicID
}

var (
	// ErrRefused is the outcome of an entry that the state machine did not
	// accept: what it expected of the state was not so. The log is unchanged
	// in meaning; take up again from the state's position.
	ErrRefused = errors.New("refused by the state machine")
	// ErrLeadLost ends every operation that is bound to a term which is over.
	// Whether the entry will still be committed is not known.
	ErrLeadLost = errors.New("the lead of this lane was lost")
	// ErrNothingToCut is the outcome of a cut when the open batch is empty.
	ErrNothingToCut = errors.New("nothing to cut")
	// ErrReleased says that a batch or entry lies below the floor.
	ErrReleased = errors.New("no longer in the log")
)
