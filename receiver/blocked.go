package receiver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"forebay/internal/record"
)

// ErrNotYet is Skip's answer while what lies before the record that blocks a
// partition is still being written: ask again.
var ErrNotYet = errors.New("what comes before the record is still being written")

// blockage is a record that the log's format cannot carry, and that its partition
// waits before. It is a plain value; the receiver's lock guards it. It holds as long
// as the log wants this record or one before it: see stands.
type blockage struct {
	id     record.TopicID
	next   int64 // what the log wants once all before the record is written
	offset int64 // the record's
	why    string
}

// stands tells whether the log has still to come past the record.
func (b *blockage) stands(pos record.Position) bool {
	return b != nil && b.id == pos.TopicID && pos.Next <= b.offset
}

// detail says it to the operator.
func (b *blockage) detail(k key) string {
	return fmt.Sprintf("%s. The partition waits before it; `forebay gaps skip %s %d` passes that one record and records the gap", b.why, k.topic, k.partition)
}

// block makes a claim stand still before a record that cannot be kept, until the
// session ends. What came before it is sealed as ever; the other claims go on.
func (c *claim) block(ctx context.Context, why *record.LimitError) error {
	b := blockage{id: c.id, next: c.next, offset: why.Offset, why: why.Error()}
	c.s.r.found(c.key, b)
	if pos, ok := c.s.r.log.Position(c.topic, c.partition); !ok || !b.stands(pos) {
		return fmt.Errorf("%w: %s was skipped on", errRejoin, c.key) // after this claim began
	}
	c.s.pause(c, pauseBlocked, true)
	for { // what sarama has fetched already is let go of
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-c.msgs:
			switch {
			case ok:
			case ctx.Err() != nil:
				return nil
			default:
				return errClaimEnded
			}
		}
	}
}

// found notes what blocks a partition, and says it once.
func (r *Receiver) found(k key, b blockage) {
	r.mu.Lock()
	was := r.blocked[k]
	r.blocked[k] = &b
	r.mu.Unlock()
	r.countBlocked()
	if was != nil && was.id == b.id && was.offset == b.offset {
		return
	}
	r.metrics.unkeepable.Inc()
	r.logger.Error("a record cannot be kept; its partition waits before it, the others go on", "topic", k.topic, "partition", k.partition,
		"offset", b.offset, "why", b.why, "way_out", fmt.Sprintf("forebay gaps skip %s %d", k.topic, k.partition))
}

// blockageOf gives what blocks a partition now, nil when nothing does. It is called
// with the lock held.
func (r *Receiver) blockageOf(k key) *blockage {
	b := r.blocked[k]
	if b == nil {
		return nil
	}
	if pos, ok := r.log.Position(k.topic, k.partition); !ok || !b.stands(pos) {
		return nil
	}
	return b
}

// countBlocked forgets what no longer blocks, and tells how much does.
func (r *Receiver) countBlocked() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := range r.blocked {
		if r.blockageOf(k) == nil {
			delete(r.blocked, k)
		}
	}
	r.metrics.blocked.Set(float64(len(r.blocked)))
}

// pass skips the record that blocks a partition: that one alone. Offsets before it
// that nobody gets are no part of the gap.
func (r *Receiver) pass(ctx context.Context, k key, b *blockage) (record.Advance, error) {
	pos, ok := r.log.Position(k.topic, k.partition)
	if !ok || !b.stands(pos) {
		return record.Advance{}, fmt.Errorf("%s: %w", k, ErrNotOutOfRange)
	}
	if pos.Next < b.next {
		return record.Advance{}, fmt.Errorf("%s offset %d: %w", k, b.offset, ErrNotYet)
	}
	a := record.Advance{Topic: k.topic, TopicID: b.id, Partition: k.partition, Base: pos.Next, Next: b.offset, Reason: record.AdvanceControl}
	if a.Base < a.Next {
		if err := r.log.Advance(ctx, a); err != nil {
			return a, fmt.Errorf("passing the holes before offset %d of %s: %w", b.offset, k, err)
		}
	}
	a.Base, a.Next, a.Reason = b.offset, b.offset+1, record.AdvanceSkipped
	if err := r.log.Advance(ctx, a); err != nil {
		return a, fmt.Errorf("recording the gap in %s: %w", k, err)
	}
	r.sayGap(k, a)
	r.note(fmt.Sprintf("gap in %s: offset %d was skipped at %s: %s", k, b.offset, time.Now().UTC().Format(time.RFC3339), b.why))
	r.countBlocked()
	return a, nil
}
