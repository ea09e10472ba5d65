package replicate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"

	"forebay/internal/record"
	"forebay/replicate/state"
)

// ErrDamaged says that the log does not hold what the state says of it. The
// record or batch cannot be read on this node.
var ErrDamaged = errors.New("the log does not agree with the state")

// ReadBatch streams a batch that was cut: the records, in the order of the log,
// whose topics want wants (nil: all). A record and its slices are valid only
// during the call of fn, whose error ends the reading and is returned as it is. Any number of
// readers may read at once; each holds one block and one large record at most.
//
// A batch that was released, before or meanwhile, gives record.ErrReleased;
// one that does not agree with what the state says of it ErrDamaged. Records that
// were passed to fn before such an error were right.
func (l *Lane) ReadBatch(ctx context.Context, seq uint64, want func(topic string) bool, fn func(*record.Record) error) error {
	return l.read(ctx, l.ctx, seq, want, fn)
}

func (l *Lane) read(ctx, term context.Context, seq uint64, want func(string) bool, fn func(*record.Record) error) error {
	info, ok := l.Batch(seq)
	if !ok {
		return l.noBatch(seq)
	}
	var records, bytes int64
	err := l.blocks(ctx, term, seq, func(_ []uint64, block []byte) error {
		sum, err := record.ParseSummary(block)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		records += sum.Records
		bytes += sum.Bytes
		return l.decode(block, sum.Spans, want, fn)
	})
	if err != nil {
		return err
	}
	if records != info.Records || bytes != info.Bytes {
		return fmt.Errorf("reading batch %s: %w: entries %d to %d hold %d records of %d bytes, the state says %d of %d",
			info.ID, ErrDamaged, info.FirstIndex, info.LastIndex, records, bytes, info.Records, info.Bytes)
	}
	return nil
}

// decode passes the wanted records of a block to fn, and checks that they are as
// many as its summary says.
func (l *Lane) decode(block []byte, spans []record.Span, want func(string) bool, fn func(*record.Record) error) error {
	var expected, seen int64
	for i := range spans {
		if want == nil || want(spans[i].Topic) {
			expected += spans[i].Records
		}
	}
	if expected == 0 {
		return nil
	}
	dec := l.decoders.get()
	defer l.decoders.put(dec)
	if err := dec.Open(block, want); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	var rec record.Record
	for {
		more, err := dec.Next(&rec)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if !more {
			break
		}
		seen++
		if err := fn(&rec); err != nil {
			return err
		}
	}
	if seen != expected {
		return fmt.Errorf("%w: a block of %d records holds %d", ErrDamaged, expected, seen)
	}
	return nil
}

// blocks passes the blocks of a batch to fn, in order, each with the indexes of its entries.
func (l *Lane) blocks(ctx, term context.Context, seq uint64, fn func(indexes []uint64, block []byte) error) error {
	layout, ok := l.Layout(seq)
	if !ok {
		return l.noBatch(seq)
	}
	err := layout.Blocks(l.fetcher(ctx, term), fn)
	if err == nil {
		return nil
	}
	// A release while we read takes entries from under us.
	if errors.Is(err, raft.ErrLogNotFound) || errors.Is(err, state.ErrLayout) {
		if _, ok := l.Layout(seq); !ok {
			return l.noBatch(seq)
		}
		if errors.Is(err, raft.ErrLogNotFound) && l.wasReleased(layout) {
			return l.noBatch(seq)
		}
		return fmt.Errorf("reading batch %d: %w: %w", seq, ErrDamaged, err)
	}
	return err
}

// wasReleased tells whether a layout begins below the log, on a node whose state
// has not caught up with the release of its batch.
func (l *Lane) wasReleased(layout state.Layout) bool {
	first, err := l.store.FirstIndex()
	return err == nil && first > layout.FirstIndex
}

func (l *Lane) noBatch(seq uint64) error {
	if seq > l.LastSeq() {
		return fmt.Errorf("batch %d has not been cut: the newest is %d", seq, l.LastSeq())
	}
	return fmt.Errorf("batch %d: %w", seq, record.ErrReleased)
}

// fetcher reads entries of the log for as long as both contexts last; what belongs to Raft is nil.
// An entry is valid until the next one is fetched.
func (l *Lane) fetcher(ctx, term context.Context) state.Fetch {
	var entry raft.Log
	var buf []byte
	return func(index uint64) ([]byte, error) {
		if err := over(ctx, term); err != nil {
			return nil, err
		}
		entry = raft.Log{}
		if err := l.store.ReadLog(index, &entry, &buf); err != nil {
			return nil, fmt.Errorf("reading entry %d: %w", index, err)
		}
		if entry.Type != raft.LogCommand {
			return nil, nil
		}
		return entry.Data, nil
	}
}

// decoderPool keeps decoders and their buffers between readings.
type decoderPool struct{ pool sync.Pool }

func (p *decoderPool) get() *record.Decoder {
	if d, ok := p.pool.Get().(*record.Decoder); ok {
		return d
	}
	return &record.Decoder{}
}

func (p *decoderPool) put(d *record.Decoder) { p.pool.Put(d) }

// errAllFound ends the search for refused records.
var errAllFound = errors.New("all found")

// locate finds refused records of a batch in the log: the entries and the size of each.
func (l *Lane) locate(ctx, term context.Context, seq uint64, refusals []record.Refusal) ([]state.RefusedRecord, error) {
	wanted := make(map[record.RecordID]int, len(refusals))
	topics := make(map[string]bool)
	for i, r := range refusals {
		wanted[r.RecordID] = i
		topics[r.Topic] = true
	}
	found := make([]state.RefusedRecord, len(refusals))
	left := len(wanted)
	err := l.blocks(ctx, term, seq, func(indexes []uint64, block []byte) error {
		sum, err := record.ParseSummary(block)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if !mayHold(sum.Spans, wanted, topics) {
			return nil
		}
		var kept []uint64
		err = l.decode(block, sum.Spans, func(topic string) bool { return topics[topic] }, func(rec *record.Record) error {
			i, ok := wanted[record.RecordID{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset}]
			if !ok {
				return nil
			}
			if kept == nil {
				kept = append(kept, indexes...)
			}
			found[i] = state.RefusedRecord{Refusal: refusals[i], Indexes: kept, Bytes: sizeOf(rec)}
			left--
			return nil
		})
		if err == nil && left == 0 {
			return errAllFound
		}
		return err
	})
	if err != nil && !errors.Is(err, errAllFound) {
		return nil, err
	}
	out := found[:0]
	for i, r := range found {
		if wanted[refusals[i].RecordID] != i {
			continue // named twice
		}
		if r.Indexes == nil {
			id := refusals[i].RecordID
			return nil, fmt.Errorf("%w: batch %d does not hold %q/%d at offset %d", record.ErrRefused, seq, id.Topic, id.Partition, id.Offset)
		}
		out = append(out, r)
	}
	return out, nil
}

// mayHold tells whether one of the spans covers one of the records.
func mayHold(spans []record.Span, wanted map[record.RecordID]int, topics map[string]bool) bool {
	for i := range spans {
		sp := &spans[i]
		if !topics[sp.Topic] {
			continue
		}
		if sp.Records < int64(len(wanted)) {
			return true
		}
		for id := range wanted {
			if id.Topic == sp.Topic && id.Partition == sp.Partition && sp.First <= id.Offset && id.Offset <= sp.Last {
				return true
			}
		}
	}
	return false
}

// sizeOf counts a record's bytes as spans do: key, value and headers.
func sizeOf(rec *record.Record) int64 {
	n := len(rec.Key) + len(rec.Value)
	for _, h := range rec.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return int64(n)
}

// ReadParked gives a parked record, as a copy. A record that is not parked
// (any more) is record.ErrReleased.
func (l *Lane) ReadParked(ctx context.Context, id uint64) (record.Parked, *record.Record, error) {
	ref, ok := l.ParkedRecord(id)
	if !ok {
		return record.Parked{}, nil, fmt.Errorf("parked record %d: %w", id, record.ErrReleased)
	}
	rec, _, err := l.parkedRecord(ctx, ref)
	return ref.Parked, rec, err
}

// parkedRecord finds a parked record's bytes and the incarnation of its topic.
func (l *Lane) parkedRecord(ctx context.Context, ref state.ParkedRef) (*record.Record, record.Span, error) {
	block, err := ref.Block(l.fetcher(ctx, l.ctx))
	if err != nil {
		if now, ok := l.ParkedRecord(ref.ID); !ok {
			return nil, record.Span{}, fmt.Errorf("parked record %d: %w", ref.ID, record.ErrReleased)
		} else if now.Copied != ref.Copied || now.Indexes[0] != ref.Indexes[0] {
			return l.parkedRecord(ctx, now) // it was carried on meanwhile
		}
		return nil, record.Span{}, fmt.Errorf("reading parked record %d: %w", ref.ID, err)
	}
	sum, err := record.ParseSummary(block)
	if err != nil {
		return nil, record.Span{}, fmt.Errorf("reading parked record %d: %w: %w", ref.ID, ErrDamaged, err)
	}
	var got *record.Record
	var span record.Span
	for _, sp := range sum.Spans {
		if sp.Topic == ref.Record.Topic && sp.Partition == ref.Record.Partition {
			span = sp
		}
	}
	err = l.decode(block, sum.Spans, func(topic string) bool { return topic == ref.Record.Topic }, func(rec *record.Record) error {
		if rec.Partition == ref.Record.Partition && rec.Offset == ref.Record.Offset {
			got = clone(rec)
		}
		return nil
	})
	if err == nil && got == nil {
		err = fmt.Errorf("%w: entries %d do not hold it", ErrDamaged, ref.Indexes)
	}
	if err != nil {
		return nil, record.Span{}, fmt.Errorf("reading parked record %d: %w", ref.ID, err)
	}
	return got, span, nil
}

// parkedBlock makes a block that holds just one parked record.
func (l *Lane) parkedBlock(ctx context.Context, ref state.ParkedRef) ([]byte, error) {
	rec, span, err := l.parkedRecord(ctx, ref)
	if err != nil {
		return nil, err
	}
	var run record.Run
	run.Reset(rec.Topic, span.TopicID, rec.Partition, rec.Offset)
	if err := run.Append(rec); err != nil {
		return nil, fmt.Errorf("copying parked record %d: %w", ref.ID, err)
	}
	return record.NewSealer(record.Zstd).Seal([]*record.Run{&run}), nil
}

// clone copies a record out of a decoder's buffers; nil stays nil.
func clone(rec *record.Record) *record.Record {
	c := *rec
	c.Key, c.Value = bytes.Clone(rec.Key), bytes.Clone(rec.Value)
	c.Headers = nil
	for _, h := range rec.Headers {
		c.Headers = append(c.Headers, record.Header{Key: bytes.Clone(h.Key), Value: bytes.Clone(h.Value)})
	}
	return &c
}
