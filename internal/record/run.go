package record

import (
	"encoding/binary"
	"fmt"
)

// Run gathers one partition's records, encoded as they come: what a claim fills
// and a Sealer takes. It keeps its buffer over Reset, so that a warm Run
// allocates nothing per record. Not safe for concurrent use.
type Run struct {
	span          Span
	body          []byte
	lastTimestamp int64
}

// OrderError says that a record did not come after the one before it.
type OrderError struct {
	RecordID
	After int64
}

func (e *OrderError) Error() string {
	return fmt.Sprintf("%s/%d: offset %d came after offset %d", e.Topic, e.Partition, e.Offset, e.After)
}

// LimitError says that the format cannot carry a record: refused by name, before it
// can become a block that no reader takes.
type LimitError struct {
	RecordID
	What string
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%s/%d: the record at offset %d cannot be kept: %s", e.Topic, e.Partition, e.Offset, e.What)
}

// Reset empties the run; base is the partition's next offset, from which it continues.
func (r *Run) Reset(topic string, id TopicID, partition int32, base int64) {
	r.span = Span{Topic: topic, TopicID: id, Partition: partition, Base: base, Last: base - 1}
	r.body, r.lastTimestamp = r.body[:0], 0
}

// Append encodes a record: its offset, timestamp, key, value and headers; topic
// and partition are the run's. An offset below the next one is an *OrderError, a
// record beyond MaxBody, MaxHeaders, MaxOffset or MaxTopic a *LimitError; both leave
// the run as it was. Nothing of rec is kept.
func (r *Run) Append(rec *Record) error {
	s := &r.span
	if rec.Offset <= s.Last {
		return &OrderError{RecordID{s.Topic, s.Partition, rec.Offset}, s.Last}
	}
	step := uint64(0)
	if s.Records > 0 {
		step = uint64(rec.Offset - s.Last)
	}
	if what := s.beyond(rec); what != "" {
		return &LimitError{RecordID{s.Topic, s.Partition, rec.Offset}, what}
	}
	b := binary.AppendUvarint(r.body, step)
	// The difference wraps, and so does its sum when it is read: exact for any two timestamps.
	b = binary.AppendVarint(b, rec.Timestamp-r.lastTimestamp)
	b = appendNullable(b, rec.Key)
	b = appendNullable(b, rec.Value)
	b = binary.AppendUvarint(b, uint64(len(rec.Headers)))
	size := len(rec.Key) + len(rec.Value)
	for i := range rec.Headers {
		h := &rec.Headers[i]
		b = appendNullable(b, h.Key)
		b = appendNullable(b, h.Value)
		size += len(h.Key) + len(h.Value)
	}
	if len(b) > MaxBody {
		return &LimitError{RecordID{s.Topic, s.Partition, rec.Offset}, "too large"}
	}
	if s.Records == 0 {
		s.First = rec.Offset
	}
	r.body, r.lastTimestamp = b, rec.Timestamp
	s.Last = rec.Offset
	s.Records++
	s.Bytes += int64(size)
	return nil
}

// Span is what the run holds so far.
func (r *Run) Span() Span { return r.span }

// Size is the encoded size so far, in bytes.
func (r *Run) Size() int { return len(r.body) }

// Empty tells whether no record was appended since Reset.
func (r *Run) Empty() bool { return r.span.Records == 0 }

// beyond names what of a record, or of the run that it would begin, no reader takes.
func (s *Span) beyond(rec *Record) string {
	switch {
	case rec.Offset > MaxOffset:
		return "offset too large"
	case len(rec.Headers) > MaxHeaders:
		return "too many headers"
	case len(rec.Key)+len(rec.Value) > MaxBody:
		return "too large"
	case s.Records > 0:
		return ""
	case s.Base < 0 || s.Partition < 0:
		return "negative base or partition"
	case len(s.Topic) > MaxTopic:
		return "name of the topic too long"
	}
	return ""
}
