package sinktest

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"

	"forebay/internal/record"
	"forebay/sinks"
)

// Names that the suite opens sinks under.
const (
	gatewayName = "gw"
	logID       = "log-a"
	sinkName    = "pages"
)

// Identity is the one that the suite opens a sink with: lane 0, node n1, of a log that has
// cut more batches than the suite delivers.
func Identity(term, next uint64) sinks.Identity {
	return sinks.Identity{
		Gateway: gatewayName, LogID: logID, Sink: sinkName, Node: "n1",
		Lane: 0, Term: term, Next: record.BatchID{Lane: 0, Seq: next}, Newest: record.BatchID{Lane: 0, Seq: 1 << 40},
	}
}

// NewBatch gives a batch of lane 0 that streams recs as the log would: each
// record is lent for one call only, and its memory is overwritten afterwards.
func NewBatch(term, seq uint64, recs []record.Record) record.Batch {
	return record.Batch{
		ID: record.BatchID{Lane: 0, Seq: seq}, Gateway: gatewayName, LogID: logID, Term: term, CutAt: int64(1_700_000_000_000 + seq),
		Read: func(ctx context.Context, fn func(*record.Record) error) error {
			for i := range recs {
				if err := ctx.Err(); err != nil {
					return err
				}
				lent := clone(&recs[i])
				err := fn(&lent)
				overwrite(&lent)
				if err != nil {
					return err
				}
			}
			return ctx.Err()
		},
	}
}

// Records gives n plain records of one partition, from offset first on.
func Records(first int64, n int) []record.Record {
	recs := make([]record.Record, n)
	for i := range recs {
		off := first + int64(i)
		recs[i] = record.Record{
			Topic: "user-behavior-topic", Partition: 3, Offset: off, Timestamp: 1_700_000_000_000 + off,
			Key:   fmt.Appendf(nil, "page-%d", off%7),
			Value: fmt.Appendf(nil, `{"page":"p%d","clicks":%d}`, off%7, off),
		}
	}
	return recs
}

func clone(r *record.Record) record.Record {
	c := *r
	c.Key, c.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
	c.Headers = slices.Clone(r.Headers)
	for i, h := range c.Headers {
		c.Headers[i] = record.Header{Key: bytes.Clone(h.Key), Value: bytes.Clone(h.Value)}
	}
	return c
}

func overwrite(r *record.Record) {
	smear := func(b []byte) {
		for i := range b {
			b[i] = 0xA5
		}
	}
	smear(r.Key)
	smear(r.Value)
	for _, h := range r.Headers {
		smear(h.Key)
		smear(h.Value)
	}
	clear(r.Headers)
	*r = record.Record{Topic: "given back", Offset: -1}
}

// settler plays the batcher's side of settle.
type settler struct {
	calls   int
	refused []record.Refusal
	fail    error
	// before runs inside each call.
	before func()
}

func (s *settler) settle(ctx context.Context, refused []record.Refusal) error {
	s.calls++
	s.refused = slices.Clone(refused)
	if s.before != nil {
		s.before()
	}
	if s.fail != nil {
		return s.fail
	}
	return ctx.Err()
}

// Accept is a Settle that agrees to everything.
func Accept(ctx context.Context, _ []record.Refusal) error { return ctx.Err() }

// shown writes a record so that records can be compared and told apart at a
// glance: nil is not empty, and what is long is shown by its length and checksum.
func shown(r *record.Record) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s/%d@%d t=%d key=%s value=%s", r.Topic, r.Partition, r.Offset, r.Timestamp, shownBytes(r.Key), shownBytes(r.Value))
	if len(r.Headers) > 3 {
		sum := crc32.NewIEEE()
		for _, h := range r.Headers {
			fmt.Fprintf(sum, "%s=%s;", shownBytes(h.Key), shownBytes(h.Value))
		}
		fmt.Fprintf(&b, " %d headers (%08x)", len(r.Headers), sum.Sum32())
		return b.String()
	}
	for _, h := range r.Headers {
		fmt.Fprintf(&b, " %s=%s", shownBytes(h.Key), shownBytes(h.Value))
	}
	return b.String()
}

func shownBytes(b []byte) string {
	switch {
	case b == nil:
		return "nil"
	case len(b) > 100:
		return fmt.Sprintf("%d bytes (%08x)", len(b), crc32.ChecksumIEEE(b))
	}
	return strconv.Quote(string(b))
}
