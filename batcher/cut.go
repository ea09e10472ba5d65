package batcher

import (
	"context"
	"errors"
	"time"

	"forebay/internal/record"
)

// cause says why a batch is cut; it is a label of a metric.
type cause string

const (
	causeInterval cause = "interval"
	causeBytes    cause = "bytes"
	causeRecords  cause = "records"
	causeRoom     cause = "room"
)

// schedule says when a cut is due. Its times run from the start of the term on
// the monotonic clock: setting the wall clock moves no boundary.
type schedule struct {
	interval time.Duration
	// first is the first boundary, in (0, interval].
	first                time.Duration
	maxBytes, maxRecords int64
}

// newSchedule lays the boundaries on the multiples of the interval (since the
// Unix epoch) of the wall clock as it is when the term begins.
func newSchedule(cfg *Config, wall time.Time) schedule {
	past := time.Duration(wall.UnixNano() % int64(cfg.Interval))
	if past < 0 {
		past += cfg.Interval
	}
	return schedule{
		interval: cfg.Interval,
		first:    cfg.Interval - past,
		maxBytes: cfg.MaxBytes, maxRecords: cfg.MaxRecords,
	}
}

// boundary is the first boundary after a time.
func (s schedule) boundary(after time.Duration) time.Duration {
	if after < s.first {
		return s.first
	}
	return s.first + (after-s.first)/s.interval*s.interval + s.interval
}

// due says when the open batch must be cut, given that its first record came at
// the time since or later and whether the intake is held for want of room, and
// why. Without records it is never due.
func (s schedule) due(open record.OpenBatch, since time.Duration, held bool) (at time.Duration, why cause, ok bool) {
	switch {
	case open.Records == 0:
		return 0, "", false
	case s.maxBytes > 0 && open.Bytes >= s.maxBytes:
		return since, causeBytes, true
	case s.maxRecords > 0 && open.Records >= s.maxRecords:
		return since, causeRecords, true
	case held:
		return since, causeRoom, true
	}
	return s.boundary(since), causeInterval, true
}

// cutAt is the time that a cut carries: the wall clock's, raised so that it
// grows from batch to batch however the clock is set.
func cutAt(wall time.Time, open record.OpenBatch) int64 {
	return max(wall.UnixMilli(), open.LastCutAt+1)
}

// unset is the time of a first record that did not come yet.
const unset time.Duration = -1

// cutter ends the open batch when it is due. It sleeps until then, and for as
// long as nothing comes.
type cutter struct {
	*Batcher
	schedule schedule
	start    time.Time
	timer    *time.Timer
}

func (b *Batcher) newCutter() *cutter {
	timer := time.NewTimer(0)
	timer.Stop()
	return &cutter{Batcher: b, schedule: newSchedule(&b.cfg, b.cfg.Clock()), start: time.Now(), timer: timer}
}

// run cuts until the context ends or the batcher is drained; it returns the
// error that ends the term, if it is the first to see it.
func (c *cutter) run(ctx context.Context) error {
	defer c.timer.Stop()
	since, failures := unset, 0
	for ctx.Err() == nil && !closed(c.stop) {
		changed := c.log.Changed()
		held, eased := c.log.Held()
		open, now := c.log.Open(), time.Since(c.start)
		if open.Records == 0 {
			since = unset
		} else if since == unset {
			since = now
		}
		at, why, ok := c.schedule.due(open, since, held != "")
		if !ok || at > now {
			c.wait(ctx, changed, eased, at-now, ok)
			continue
		}
		switch err := c.cut(ctx, open, why); {
		case err == nil:
			// What came since the cut began is due at the boundary after that,
			// even if the cut took longer.
			since, failures = now, 0
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, record.ErrLeadLost):
			return err
		default:
			failures++
			if failures == 1 {
				c.logger.Error("cutting a batch failed, trying again", "batch", c.id(open.Seq).String(), "error", err)
			}
			c.wait(ctx, nil, nil, c.retryCut.delay(failures, c.cfg.Rand()), true)
		}
	}
	return nil
}

func (c *cutter) cut(ctx context.Context, open record.OpenBatch, why cause) error {
	c.cuts.put(open.Seq, time.Now())
	if err := c.log.Cut(ctx, open.Seq, cutAt(c.cfg.Clock(), open)); err != nil {
		c.metrics.cutFailures.Inc()
		return err
	}
	c.metrics.cuts.WithLabelValues(c.lane, string(why)).Inc()
	c.metrics.lastCut.Set(float64(open.Seq))
	for _, s := range c.sinks {
		s.showCursor()
	}
	return nil
}

// wait returns when something changed or the intake was held or opened, when the time has passed (if timed), or
// when there is no more to do.
func (c *cutter) wait(ctx context.Context, changed, eased <-chan struct{}, d time.Duration, timed bool) {
	if timed {
		c.timer.Reset(d)
		defer c.timer.Stop()
	}
	select {
	case <-changed:
	case <-eased:
	case <-c.timer.C:
	case <-c.stop:
	case <-ctx.Done():
	}
}
