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
	// freshMost bounds the part of a stall that is made good soon, at up to the rate
	// once more, so that nothing beyond rateBurst is ever taken at once.
	freshMost = 8 * time.Millisecond
	// makeUp is the share of the rate by which more may be taken as long as more time than
	// that is owed. With both and the burst that is at most 2.3 % more in a second and
	// 0.9 % in five, which leaves room below the promise (3 %, 1 %) for what is counted late.
	makeUp = 0.005
	// makeUpFrom is the rate (per second) below which nothing is made good: there one
	// record more would be beyond the promise.
	makeUpFrom = 500
	// makeUpMost bounds the time owed.
	makeUpMost = time.Second
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
	// owed is time, in nanoseconds, that passed unused although more was wanted, beyond
	// what the burst makes up for: a machine that wakes nobody for long. It is made
	// good by makeUp; fresh is the part that comes sooner.
	owed, fresh float64
	seen        float64 // when fresh was last looked at
	wanted      bool    // more is wanted than the bucket gives
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
	// For each moment that passes, a moment that was lost, as far as there is room for credit.
	soon := max(0, min(b.fresh, now-b.seen, b.burst()-(now-b.ready)))
	b.ready, b.fresh, b.seen = b.ready-soon, b.fresh-soon, now
	if b.ready <= now {
		return 0
	}
	b.wanted = true
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
	if lost := now - b.burst() - b.ready; lost > 0 {
		b.ready += lost
		if b.wanted && b.rate >= makeUpFrom {
			soon := min(lost, float64(freshMost)-b.fresh)
			b.fresh += soon
			b.owed = min(b.owed+lost-soon, float64(makeUpMost))
		}
	}
	b.ready += units * float64(time.Second) / b.rate
}

// used tells how much of what was booked has been taken in the end, and whether
// more is wanted.
func (b *bucket) used(units float64, more bool) {
	if b.rate <= 0 {
		return
	}
	good := min(b.owed, makeUp*units*float64(time.Second)/b.rate)
	b.ready, b.owed, b.wanted = b.ready-good, b.owed-good, more
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
	more    bool // more records wait than are granted
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
	binding [3]binding // of the caps, in the order of capNames
}

// capNames are the caps as Status says them, in the order in which they are looked at.
var capNames = [3]string{heldMaxRate, heldMaxBytesRate, heldMaxRatePerPartition}

// binding is the share of the time in which somebody waits for a cap, over about the
// last second: see bindingHalf.
type binding struct {
	share     float64
	at, until float64 // the share is of at; somebody waits until then
}

const (
	// bindingHalf is how long it takes to half believe that a cap binds, or binds no more.
	bindingHalf = 500 * time.Millisecond
	// bindingShare is the share from which on a cap binds: a backlog waits nearly all
	// the time; what comes in bursts of some milliseconds, and is at nine tenths of the cap,
	// this much.
	bindingShare = 0.4
)

// look gives the share at a moment.
func (b *binding) look(now float64) float64 {
	fade := func(d float64) float64 { return math.Exp2(-max(d, 0) / float64(bindingHalf)) }
	waited := min(now, b.until) - b.at
	b.share = 1 - (1-b.share)*fade(waited)
	b.share *= fade(now - max(b.at, b.until))
	b.at = max(b.at, now)
	return b.share
}

// waits notes that somebody waits from now on.
func (b *binding) waits(now float64, wait time.Duration) {
	b.look(now)
	b.until = max(b.until, now+float64(wait))
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
// how long to wait, minWait at least. The grant is booked as if it will be used whole; settle
// gives back the rest.
func (l *limiter) try(now float64, part *bucket, want, size int) (grant, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	part.set(l.limits.PerPartition)
	wait, by := time.Duration(0), 0
	for i, w := range [...]time.Duration{l.records.wait(now), l.bytes.wait(now), part.wait(now)} {
		if w > wait {
			wait, by = w, i
		}
	}
	if wait > 0 {
		wait = max(wait, minWait)
		l.binding[by].waits(now, wait)
		return grant{}, wait
	}
	n := min(float64(want), maxChunk, l.records.credit(now), part.credit(now))
	g := grant{records: max(1, int(n)), bytes: math.Inf(1)}
	g.more = g.records < want
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
	l.records.used(float64(records), g.more)
	part.take(now, float64(records-g.records))
	part.used(float64(records), g.more)
	if !math.IsInf(g.bytes, 1) {
		l.bytes.take(now, float64(bytes)-g.bytes)
		l.bytes.used(float64(bytes), float64(bytes) >= g.bytes)
	}
}

// heldBy names the cap that binds: for which somebody waits much of the time. A claim
// that waits a moment now and then, as what it takes comes in bursts, is not held.
func (l *limiter) heldBy(now float64) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	name, most := "", bindingShare
	for i := range l.binding {
		if share := l.binding[i].look(now); share > most {
			name, most = capNames[i], share
		}
	}
	return name
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
		if err := sleep(ctx, wait); err != nil {
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
