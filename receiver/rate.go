package receiver

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// rateBurst bounds what may be taken at once after a wait, as time at the
	// rate: it makes up for timers that fire late.
	rateBurst = 10 * time.Millisecond
	// burstFrom is the rate (per second) below which there is no burst: there a
	// single record more would already be beyond 3 % of a second's share.
	burstFrom = 50
	// minWait keeps high rates from waking for every single record.
	minWait = time.Millisecond
	// maxChunk bounds the records taken under one grant.
	maxChunk = 512
)

// Limits caps the intake. Zero means no cap.
type Limits struct {
	Records      float64 // records per second, over all claims
	Bytes        float64 // bytes per second of keys, values and headers, over all claims
	PerPartition float64 // records per second of each partition
}

// bucket is a rate kept as debt. Time is nanoseconds on any clock that does
// not go back. Taking is allowed whenever the debt is paid, also more than
// there is credit for: that makes new debt, so that a record larger than the
// burst passes and is paid back. The zero value has no limit.
type bucket struct {
	rate  float64 // units per second; 0: no limit
	ready float64 // when the debt is paid; earlier than now: credit
	begun bool
}

// set changes the rate from now on; what is owed stays owed in time.
func (b *bucket) set(rate float64) { b.rate = rate }

// wait tells how long the debt lasts; 0: something may be taken.
func (b *bucket) wait(now float64) time.Duration {
	if b.rate <= 0 {
		return 0
	}
	if !b.begun { // starts empty: no credit from before the first record
		b.ready, b.begun = now, true
	}
	if b.ready <= now {
		return 0
	}
	return time.Duration(math.Ceil(b.ready - now))
}

// credit tells how many units are there without making debt.
func (b *bucket) credit(now float64) float64 {
	if b.rate <= 0 {
		return math.Inf(1)
	}
	return max(0, min(now-b.ready, b.burst())) * b.rate / float64(time.Second)
}

func (b *bucket) burst() float64 {
	if b.rate < burstFrom {
		return 0
	}
	return float64(rateBurst)
}

// take books units; negative ones give back.
func (b *bucket) take(now, units float64) {
	if b.rate <= 0 {
		return
	}
	b.ready = max(b.ready, now-b.burst()) + units*float64(time.Second)/b.rate
}

// Names of what holds the intake back, as Status and the metrics say them.
const (
	heldMaxRate             = "maxRate"
	heldMaxBytesRate        = "maxBytesRate"
	heldMaxRatePerPartition = "maxRatePerPartition"
	heldLog                 = "log"
)

// grant is the leave to take up to records of them, and to stop once bytes
// are reached (but never before the first).
type grant struct {
	records int
	bytes   float64
	free    bool // nothing was booked
}

// limiter shares the caps between the claims of a lane. It decides on the
// time that it is given; acquire alone looks at a clock.
type limiter struct {
	start time.Time
	free  atomic.Bool // there is no cap at all

	mu      sync.Mutex
	limits  Limits
	records bucket
	bytes   bucket
	by      string // what made somebody wait last
	byAt    float64
}

func newLimiter(limits Limits) *limiter {
	l := &limiter{start: time.Now()}
	l.set(limits)
	return l
}

// set changes the caps.
func (l *limiter) set(limits Limits) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limits = limits
	l.free.Store(limits == Limits{})
	l.records.set(limits.Records)
	l.bytes.set(limits.Bytes)
}

// now is the monotonic time since the limiter was made.
func (l *limiter) now() float64 { return float64(time.Since(l.start)) }

// try grants up to want records, the first of which has size bytes, or tells
// how long to wait. The grant is booked as if it will be used whole; settle
// gives back the rest.
func (l *limiter) try(now float64, part *bucket, want, size int) (grant, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	part.set(l.limits.PerPartition)
	wait, by := l.records.wait(now), heldMaxRate
	if w := l.bytes.wait(now); w > wait {
		wait, by = w, heldMaxBytesRate
	}
	if w := part.wait(now); w > wait {
		wait, by = w, heldMaxRatePerPartition
	}
	if wait > 0 {
		l.by, l.byAt = by, now
		return grant{}, wait
	}
	n := min(float64(want), maxChunk, l.records.credit(now), part.credit(now))
	g := grant{records: max(1, int(n)), bytes: math.Inf(1)}
	if l.bytes.rate > 0 {
		g.bytes = max(float64(size), l.bytes.credit(now))
		l.bytes.take(now, g.bytes)
	}
	l.records.take(now, float64(g.records))
	part.take(now, float64(g.records))
	return g, 0
}

// settle books what was really taken under a grant.
func (l *limiter) settle(now float64, part *bucket, g grant, records, bytes int) {
	if g.free {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records.take(now, float64(records-g.records))
	part.take(now, float64(records-g.records))
	if !math.IsInf(g.bytes, 1) {
		l.bytes.take(now, float64(bytes)-g.bytes)
	}
}

// heldBy names the cap that made a claim wait within the last second.
func (l *limiter) heldBy() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by != "" && l.now()-l.byAt < float64(time.Second) {
		return l.by
	}
	return ""
}

// acquire waits for a grant. slow is called before a wait that is worth
// stopping the fetches for.
func (l *limiter) acquire(ctx context.Context, part *bucket, want, size int, slow func()) (grant, error) {
	if l.free.Load() {
		return grant{records: want, bytes: math.Inf(1), free: true}, nil
	}
	for {
		g, wait := l.try(l.now(), part, want, size)
		if wait == 0 {
			return g, nil
		}
		if wait > slowWait {
			slow()
		}
		if err := sleep(ctx, max(wait, minWait)); err != nil {
			return grant{}, err
		}
	}
}

// slowWait is the wait for the rate from which on a claim stops fetching.
const slowWait = 100 * time.Millisecond

// sleep waits, or returns the context's error when that ends first.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
