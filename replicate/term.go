package replicate

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"golang.org/x/sync/semaphore"

	"forebay/internal/record"
	"forebay/replicate/state"
)

// Term is one term of the lead. When it is over every operation returns
// record.ErrLeadLost; the views still answer, from whatever the state is then.
// An operation that was refused by the state machine returns an error that wraps
// record.ErrRefused and changed nothing.
type Term struct {
	views
	lane   *Lane
	number uint64
	ctx    context.Context
	end    context.CancelCauseFunc

	// turn is held by the caller of Append that is next; queue goes to the settler.
	turn  chan struct{}
	bytes *semaphore.Weighted
	slots slots
	queue chan pending
	work  sync.WaitGroup
}

func newTerm(ctx context.Context, l *Lane, number uint64) *Term {
	t := &Term{
		views: l.views, lane: l, number: number,
		turn:  make(chan struct{}, 1),
		bytes: semaphore.NewWeighted(l.cfg.InFlightBytes),
		slots: newSlots(blockSlots),
		queue: make(chan pending, blockSlots),
	}
	t.ctx, t.end = context.WithCancelCause(ctx)
	l.space.open()
	t.work.Go(t.settle)
	t.work.Go(t.retain)
	return t
}

// finish waits until nothing of the term is under way; t.ctx has ended.
func (t *Term) finish() {
	t.turn <- struct{}{}
	close(t.queue)
	t.work.Wait()
	<-t.turn
	t.lane.space.close()
}

// Number is the term's number, which fences sinks.
func (t *Term) Number() uint64 { return t.number }

// now is the leader's clock in Unix milliseconds.
func (t *Term) now() int64 { return t.lane.cfg.Clock().UnixMilli() }

// do proposes an entry, or as many as its lists take, one after another.
func (t *Term) do(ctx context.Context, entry any) error {
	for _, e := range state.EncodeAll(entry) {
		if err := t.doEncoded(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// doEncoded proposes one entry; see Lane.propose.
func (t *Term) doEncoded(ctx context.Context, entry []byte) error {
	_, err := t.lane.propose(ctx, t.ctx, entry)
	if errors.Is(err, record.ErrLeadLost) {
		t.end(err)
	}
	return err
}

// SetBases records where partitions begin; durable on return.
func (t *Term) SetBases(ctx context.Context, bases []record.Base) error {
	return t.do(ctx, state.Bases{Bases: bases, At: t.now()})
}

// Advance moves a partition's next offset without records. Where that is backwards,
// the open batch is cut first: see parted.
func (t *Term) Advance(ctx context.Context, a record.Advance) error {
	if a.Next < a.Base {
		if err := t.parted(ctx); err != nil {
			return err
		}
	}
	return t.do(ctx, state.Advance{Advance: a, At: t.now()})
}

// ReplaceTopic takes up a new incarnation of a topic, from offset 0. Suspect is the
// first entry that may hold its records under the old one's id, 0 when not known.
// The open batch is cut first: see parted.
func (t *Term) ReplaceTopic(ctx context.Context, c record.TopicChange, suspect uint64) error {
	if err := t.parted(ctx); err != nil {
		return err
	}
	return t.do(ctx, state.TopicChange{TopicChange: c, Suspect: suspect, At: t.now()})
}

// parted cuts the open batch before offsets come again, so that within a batch an
// offset names one record: refusals go by it, and would leave out both. Nothing of
// the partitions that go back may be in flight.
func (t *Term) parted(ctx context.Context) error {
	open := t.Open()
	if open.Records == 0 {
		return nil
	}
	err := t.Cut(ctx, open.Seq, t.now())
	if errors.Is(err, record.ErrRefused) && t.LastSeq() >= open.Seq {
		return nil // the batcher's own cut came first
	}
	return err
}

// Cut ends the open batch as number seq; at is Unix milliseconds. An empty open
// batch is record.ErrNothingToCut.
func (t *Term) Cut(ctx context.Context, seq uint64, at int64) error {
	return t.do(ctx, state.Cut{Term: t.number, Seq: seq, At: at})
}

// Done moves a sink's cursor past a batch.
func (t *Term) Done(ctx context.Context, done record.Done) error {
	return t.do(ctx, state.Done{Done: done, Term: t.number})
}

// AddSink gives a sink its cursor: at the oldest batch that is kept, or at the next
// to be cut.
func (t *Term) AddSink(ctx context.Context, name, destination string, newest bool) error {
	return t.do(ctx, state.SinkAdd{Name: name, Destination: destination, Newest: newest, At: t.now()})
}

// RemoveSink forgets a sink, whose cursor must be from.
func (t *Term) RemoveSink(ctx context.Context, name string, from uint64) error {
	return t.do(ctx, state.SinkRemove{Name: name, GivesUpFrom: from, At: t.now()})
}

// PauseSink pauses or resumes a sink for this and later terms.
func (t *Term) PauseSink(ctx context.Context, name string, paused bool) error {
	return t.do(ctx, state.SinkPause{Name: name, Paused: paused, At: t.now()})
}

// Discard forgets parked records for good.
func (t *Term) Discard(ctx context.Context, ids []uint64) error {
	return t.do(ctx, state.Discard{IDs: ids, At: t.now()})
}

// Set writes an administrative value; "" removes it.
func (t *Term) Set(ctx context.Context, key, value string) error {
	return t.do(ctx, state.Set{Key: key, Value: value})
}

// Read streams one batch, as Lane.ReadBatch does, for as long as the term lasts.
func (t *Term) Read(ctx context.Context, seq uint64, want func(topic string) bool, fn func(*record.Record) error) error {
	return t.lane.read(ctx, t.ctx, seq, want, fn)
}

// Held says why intake is held for want of room, "" when it is open, and gives
// a channel that is closed when that changes.
func (t *Term) Held() (reason string, changed <-chan struct{}) { return t.lane.space.state() }

// ErrParkedFull says that records cannot be parked: parked.maxBytes is reached.
// It lasts until parked records are discarded or the limit is raised.
var ErrParkedFull = errors.New("no room for parked records")

// Refuse records which records of a batch are left out for a sink, parked or
// dropped. It finds them in the log first; one that is not in the batch is an
// error. Many refusals take several entries: after an error some of them may be recorded, which a
// repetition completes.
func (t *Term) Refuse(ctx context.Context, sink string, seq uint64, drop bool, refusals []record.Refusal) error {
	refusals = t.notYetExcluded(sink, seq, refusals)
	if len(refusals) == 0 {
		return over(ctx, t.ctx)
	}
	located, err := t.lane.locate(ctx, t.ctx, seq, refusals)
	if err != nil {
		return fmt.Errorf("locating refused records: %w", err)
	}
	if err := t.roomToPark(sink, drop, located); err != nil {
		return err
	}
	return t.do(ctx, state.Refuse{Sink: sink, Term: t.number, Seq: seq, Drop: drop, Refusals: located, At: t.now()})
}

func (t *Term) notYetExcluded(sink string, seq uint64, refusals []record.Refusal) []record.Refusal {
	excluded := t.Excluded(sink, seq)
	if len(excluded) == 0 {
		return refusals
	}
	known := make(map[record.RecordID]bool, len(excluded))
	for _, id := range excluded {
		known[id] = true
	}
	var fresh []record.Refusal
	for _, r := range refusals {
		if !known[r.RecordID] {
			fresh = append(fresh, r)
		}
	}
	return fresh
}

func (t *Term) roomToPark(sink string, drop bool, located []state.RefusedRecord) error {
	if drop {
		return nil
	}
	var size int64
	for _, r := range located {
		size += r.Bytes + state.ParkedOverhead
	}
	held, limit := t.ParkedBytes(), t.lane.cfg.ParkedMaxBytes
	if size > math.MaxInt64-held || held+size > limit {
		return fmt.Errorf("%w: sink %q refuses %d records of %d bytes, %d bytes are parked, and parked.maxBytes is %d: discard parked records, raise the limit, or mend the destination",
			ErrParkedFull, sink, len(located), size, held, limit)
	}
	return nil
}
