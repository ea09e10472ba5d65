package replicate

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"forebay/internal/record"
)

// pending is one proposed entry on its way to its outcome.
type pending struct {
	// future is nil for a block whose parts could not all be proposed.
	future raft.Future
	block  *flight
	// last is set on a block's only entry, or its last part.
	last bool
}

// flight is one block under way.
type flight struct {
	settled func(error)
	start   time.Time
	size    int
	// weight is what it takes of the bytes in flight.
	weight int64
	// err is the first failure of its parts.
	err error
}

// Append hands over a sealed block, which the log keeps: it must not be changed
// any more. It blocks while as much is in flight as may be, and while intake is held
// for want of room; when it returns an error nothing was proposed. After nil, settled
// is called exactly once, in the order of the Appends, from one goroutine: nil means synced on a majority and
// accepted. settled must not block. A block larger than record.MaxEntry travels
// in parts, one after another, with one outcome.
func (t *Term) Append(ctx context.Context, block []byte, settled func(error)) error {
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.ctx.Done():
		return leadLost(t.ctx)
	}
	defer func() { <-t.turn }()
	f := &flight{settled: settled, size: len(block), weight: min(int64(len(block)), t.lane.cfg.InFlightBytes)}
	if err := t.admit(ctx, f.weight); err != nil {
		return err
	}
	t.lane.metrics.inFlight.Add(float64(f.size))
	f.start = time.Now()
	if len(block) <= record.MaxEntry {
		t.queue <- pending{future: t.lane.raft.Apply(block, 0), block: f, last: true}
		return nil
	}
	parts := record.Split(block)
	for i, part := range parts {
		// The first slot was taken by admit. From the first part on the block is
		// accepted, so only the end of the term stops it.
		if i > 0 && !t.slots.acquire(t.ctx, t.ctx) {
			t.queue <- pending{block: f, last: true}
			return nil
		}
		t.queue <- pending{future: t.lane.raft.Apply(part, 0), block: f, last: i == len(parts)-1}
	}
	return nil
}

// admit waits for room on the disk, then in flight, and takes a slot.
func (t *Term) admit(ctx context.Context, weight int64) error {
	for {
		if err := t.awaitRoom(ctx); err != nil {
			return err
		}
		if err := t.acquireBytes(ctx, weight); err != nil {
			return err
		}
		if !t.slots.acquire(ctx, t.ctx) {
			t.bytes.Release(weight)
			return over(ctx, t.ctx)
		}
		if err := over(ctx, t.ctx); err != nil {
			t.slots.release()
			t.bytes.Release(weight)
			return err
		}
		// What was waited for in flight may have filled the disk.
		if t.lane.space.admit(weight) {
			return nil
		}
		t.slots.release()
		t.bytes.Release(weight)
	}
}

func (t *Term) awaitRoom(ctx context.Context) error {
	for {
		if err := over(ctx, t.ctx); err != nil {
			return err
		}
		reason, changed := t.Held()
		if reason == "" {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		case <-t.ctx.Done():
		}
	}
}

func (t *Term) acquireBytes(ctx context.Context, weight int64) error {
	if t.bytes.TryAcquire(weight) {
		return nil
	}
	both, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()
	if t.bytes.Acquire(both, weight) != nil {
		return over(ctx, t.ctx)
	}
	return nil
}

// settle reports outcomes in order, until the queue is closed and empty.
func (t *Term) settle() {
	for p := range t.queue {
		err := record.ErrLeadLost
		if p.future != nil {
			err = t.outcomeOf(p.future)
			t.slots.release()
		}
		f := p.block
		if f.err == nil {
			f.err = err
		}
		if !p.last {
			continue
		}
		t.bytes.Release(f.weight)
		t.lane.metrics.inFlight.Sub(float64(f.size))
		t.lane.metrics.appends.Observe(time.Since(f.start).Seconds())
		f.settled(f.err)
	}
}

func (t *Term) outcomeOf(f raft.Future) error {
	res, err := outcome(f)
	if err == nil {
		err = res.Err
	}
	if errors.Is(err, record.ErrLeadLost) {
		t.end(err)
	}
	return err
}
