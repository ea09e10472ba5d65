package sinks

import (
	"errors"
	"fmt"
	"strings"

	"forebay/internal/record"
)

const (
	// MaxRefusals bounds the records that one attempt may refuse. Beyond it
	// the records are not at fault but the mapping or the encoding.
	MaxRefusals = 100_000
	// maxReason bounds the words kept of one refusal, in bytes.
	maxReason = 256
)

// ErrTooManyRefusals ends an attempt that refused more than MaxRefusals records.
// It is temporary: changed settings and a restart deliver the same batch.
var ErrTooManyRefusals = errors.New("too many records refused")

// Refusals collects the records that an attempt leaves out. The zero value is
// ready; it is for one attempt and one goroutine.
type Refusals struct {
	list  []record.Refusal
	topic string
}

// Add refuses rec. It keeps nothing of rec's memory.
func (r *Refusals) Add(rec *record.Record, reason error) error {
	if len(r.list) == MaxRefusals {
		return fmt.Errorf("%w: more than %d in one batch, the last %s/%d offset %d: %w",
			ErrTooManyRefusals, MaxRefusals, rec.Topic, rec.Partition, rec.Offset, reason)
	}
	if r.topic != rec.Topic {
		r.topic = strings.Clone(rec.Topic)
	}
	words := reason.Error()
	if len(words) > maxReason {
		words = words[:maxReason]
	}
	r.list = append(r.list, record.Refusal{
		RecordID: record.RecordID{Topic: r.topic, Partition: rec.Partition, Offset: rec.Offset},
		Reason:   strings.ToValidUTF8(words, "\uFFFD"),
	})
	return nil
}

// List gives what was added, in order; nil when nothing was.
func (r *Refusals) List() []record.Refusal { return r.list }
