package batcher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"forebay/internal/record"
)

// deliver makes one attempt at a batch, and moves the cursor when it succeeded.
func (c *courier) deliver(ctx context.Context, seq uint64) error {
	info, ok := c.log.Batch(seq)
	if !ok {
		return fmt.Errorf("batch %s: %w", c.b.id(seq), record.ErrReleased)
	}
	c.begin(info)
	a := newAttempt(ctx, c, info)
	began := time.Now()
	err := c.call(ctx, "deliver", &a.ours, func(ctx context.Context) error {
		return c.cfg.Sink.Deliver(ctx, a.batch(), a.settle)
	})
	c.metrics.delivery.Observe(time.Since(began).Seconds())
	err = a.outcome(err)
	if err == nil && !a.done {
		// With the context goes the lead: a done that is proposed now could
		// only be refused, and the next leader sees the batch again either way.
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err = c.commit(ctx, seq)
	}
	switch {
	case errors.Is(err, errGone):
		c.batch = current{}
		return nil
	case err != nil && a.done:
		c.lose(err)
		return err
	case err != nil:
		return err
	}
	c.finish(a)
	return c.advance(ctx)
}

// begin takes up a batch, or takes it up again.
func (c *courier) begin(info record.BatchInfo) {
	now := time.Now()
	if c.batch.seq != info.ID.Seq {
		c.batch = current{seq: info.ID.Seq, began: now, wall: c.now()}
		delay, known := c.b.cuts.since(info.ID.Seq, now)
		if !known { // cut in an earlier term: only the wall clock tells
			delay = max(0, c.batch.wall.Sub(time.UnixMilli(info.CutAt)))
		}
		c.batch.scheduling = delay
		c.metrics.scheduling.Observe(delay.Seconds())
	}
	c.batch.attempts++
	c.metrics.attempts.Inc()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setLocked(func(s *SinkStatus) {
		s.State, s.StartedAt, s.NextRetry = StateDelivering, c.batch.wall, time.Time{}
	})
	d := c.history.slot(c.b.id(c.batch.seq))
	d.Sink, d.State, d.StartedAt = c.cfg.Name, StateDelivering, c.batch.wall
	d.Attempts, d.SchedulingDelay = int(c.batch.attempts), c.batch.scheduling
}

// commit appends the done, for as long as it takes: what the sink has is not
// delivered again only because the log was slow to hear of it.
func (c *courier) commit(ctx context.Context, seq uint64) error {
	for failures := 1; ; failures++ {
		err := c.log.Done(ctx, record.Done{
			Sink: c.cfg.Name, Seq: seq, Attempts: c.batch.attempts,
			StartedAt: c.batch.wall.UnixMilli(), DoneAt: c.now().UnixMilli(),
		})
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, record.ErrLeadLost):
			return err
		case errors.Is(err, record.ErrRefused):
			state, known := c.log.Sink(c.cfg.Name)
			if !known {
				return errGone
			}
			if state.Cursor > seq { // an earlier try was taken after all
				return nil
			}
		}
		if failures == 1 {
			c.logger.Error("recording a delivery failed, trying again", "batch", c.b.id(seq).String(), "error", err)
		}
		sleep(ctx, c.b.retryCut.delay(failures, c.b.cfg.Rand()))
	}
}

// finish closes the book on a batch that the sink has.
func (c *courier) finish(a *attempt) {
	now, processing := c.now(), time.Since(c.batch.began)
	records, bytes := a.delivered()
	m := c.metrics
	m.batches.Inc()
	m.records.Add(float64(records))
	m.bytes.Add(float64(bytes))
	m.processing.Observe(processing.Seconds())
	m.total.Observe((c.batch.scheduling + processing).Seconds())
	m.succeeded(float64(now.UnixMilli()) / 1e3)
	c.recovered()
	c.mu.Lock()
	c.shown.LastSuccess, c.shown.StartedAt = now, time.Time{}
	d := c.history.slot(c.b.id(c.batch.seq))
	d.State, d.DoneAt, d.ProcessingTime = StateDone, now, processing
	d.TotalDelay = d.SchedulingDelay + processing
	c.mu.Unlock()
	c.logger.Debug("batch delivered", "batch", c.b.id(c.batch.seq).String(), "records", records, "attempts", c.batch.attempts)
	c.batch = current{}
}

// lose says that a batch of an at-most-once sink will not come again.
func (c *courier) lose(err error) {
	c.metrics.lost.Inc()
	c.logger.Error("batch lost: the at-most-once sink failed after the cursor had moved",
		"batch", c.b.id(c.batch.seq).String(), "error", err)
	c.mu.Lock()
	d := c.history.slot(c.b.id(c.batch.seq))
	d.State, d.Error = StateLost, err.Error()
	c.shown.StartedAt = time.Time{}
	c.mu.Unlock()
	c.batch = current{}
}

// advance tells the sink how far its cursor is. Its error costs nothing: the
// next call says all again. Only a panic is a failure of the sink.
func (c *courier) advance(ctx context.Context) error {
	sink, ok := c.cfg.Sink.(Advancer)
	if !ok || ctx.Err() != nil {
		return nil
	}
	state, known := c.log.Sink(c.cfg.Name)
	if !known {
		return nil
	}
	next, oldest := c.b.id(state.Cursor), c.b.id(c.log.FirstSeq())
	err := c.call(ctx, "advance", nil, func(ctx context.Context) error { return sink.Advanced(ctx, next, oldest) })
	var panicked *PanicError
	if errors.As(err, &panicked) {
		return err
	}
	text := ""
	if err != nil && ctx.Err() == nil {
		text = err.Error()
		if text != c.saidAdvance {
			c.logger.Warn("telling the sink its cursor failed; the next batch tells it again", "next", next.String(), "error", err)
		}
	}
	c.saidAdvance = text
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
