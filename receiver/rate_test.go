package receiver

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// event is something taken on the virtual clock.
type event struct {
	at    float64 // nanoseconds
	units float64
}

// busiest gives the most that any half-open window of a length holds.
func busiest(events []event, window float64) float64 {
	sum, most, first := 0.0, 0.0, 0
	for _, e := range events {
		for events[first].at <= e.at-window {
			sum -= events[first].units
			first++
		}
		sum += e.units
		most = max(most, sum)
	}
	return most
}

// drain takes from an endless backlog for a virtual time, by claims that wake
// up to late nanoseconds after they should.
func drain(l *limiter, claims, size int, total, late float64) []event {
	return drainLate(l, claims, size, total, func(rng *rand.Rand) float64 { return rng.Float64() * late })
}

// drainLate is drain by claims that wake as late as late says.
func drainLate(l *limiter, claims, size int, total float64, late func(*rand.Rand) float64) []event {
	rng := rand.New(rand.NewPCG(1, 2))
	parts := make([]bucket, claims)
	wake := make([]float64, claims)
	var events []event
	for {
		c := 0
		for i := range wake {
			if wake[i] < wake[c] {
				c = i
			}
		}
		now := wake[c]
		if now >= total {
			return events
		}
		g, wait := l.try(now, &parts[c], channelBuffer+1, size)
		if wait > 0 {
			wake[c] = now + float64(wait) + late(rng)
			continue
		}
		n := min(g.records, 1+rng.IntN(channelBuffer)) // the channel may hold fewer than granted
		if !math.IsInf(g.bytes, 1) {
			n = min(n, max(1, int(g.bytes)/size))
		}
		l.settle(now, &parts[c], g, n, n*size)
		events = append(events, event{now, float64(n)})
		wake[c] = now + rng.Float64()*float64(10*time.Microsecond)
	}
}

// TestRatesInEveryWindow holds the bucket to the promise: never more than 3 %
// above the cap in a second nor 1 % in five (or one record, where that is
// more than a percent), and at most 5 % below it from the first second on.
func TestRatesInEveryWindow(t *testing.T) {
	const second = float64(time.Second)
	for _, rate := range []float64{1, 2, 3, 7, 10, 33, 34, 49, 50, 51, 99, 100, 150, 1000, 5000, 123456, 1e6} {
		for _, claims := range []int{1, 7} {
			for _, late := range []float64{0, float64(800 * time.Microsecond)} {
				t.Run(fmt.Sprintf("rate=%v/claims=%d/late=%v", rate, claims, time.Duration(late)), func(t *testing.T) {
					l := newLimiter(Limits{Records: rate})
					seconds := 12.0
					if rate > 1e4 {
						seconds = 6
					}
					events := drain(l, claims, 100, seconds*second, late)
					if got, most := busiest(events, second), math.Max(rate*1.03, math.Ceil(rate)); got > most {
						t.Errorf("%v records in one second, at most %v", got, most)
					}
					if got, most := busiest(events, 5*second), math.Max(rate*5.05, math.Ceil(5*rate)); got > most {
						t.Errorf("%v records in five seconds, at most %v", got, most)
					}
					for s := range int(seconds) {
						in := 0.0
						for _, e := range events {
							if e.at >= float64(s)*second && e.at < float64(s+1)*second {
								in += e.units
							}
						}
						if least := math.Floor(rate * 0.95); in < least {
							t.Errorf("second %d: %v records, at least %v", s, in, least)
						}
					}
				})
			}
		}
	}
}

func TestByteRateInEveryWindow(t *testing.T) {
	const second, rate = float64(time.Second), 1e6
	l := newLimiter(Limits{Bytes: rate})
	events := drain(l, 3, 700, 12*second, 0)
	for i := range events {
		events[i].units *= 700
	}
	if got := busiest(events, second); got > 1.03*rate {
		t.Errorf("%v bytes in one second", got)
	}
	if got := busiest(events, 5*second); got > 5*1.01*rate || got < 5*0.95*rate {
		t.Errorf("%v bytes in five seconds", got)
	}
}

// TestRecordLargerThanTheBurstIsPaidBack: 20 MB at 1 MB/s passes at once, and
// then nothing for 20 s.
func TestRecordLargerThanTheBurstIsPaidBack(t *testing.T) {
	l := newLimiter(Limits{Bytes: 1e6})
	var part bucket
	g, wait := l.try(0, &part, 1, 20e6)
	if wait != 0 || g.records != 1 {
		t.Fatalf("grant %v, wait %v", g, wait)
	}
	l.settle(0, &part, g, 1, 20e6)
	if _, wait := l.try(float64(time.Second), &part, 1, 10); wait != 19*time.Second {
		t.Errorf("wait %v, want 19s", wait)
	}
	if _, wait := l.try(20*float64(time.Second), &part, 1, 10); wait != 0 {
		t.Errorf("the debt is paid, but wait %v", wait)
	}
}

func TestPartitionRate(t *testing.T) {
	const second = float64(time.Second)
	l := newLimiter(Limits{PerPartition: 100})
	events := drain(l, 5, 100, 6*second, 0)
	if got := busiest(events, 5*second); got > 5*5*100*1.01 || got < 5*5*95 {
		t.Errorf("%v records in five seconds of five partitions at 100/s", got)
	}
}

// TestStartsEmpty: a limiter that was made long ago gives no burst to its first record.
func TestStartsEmpty(t *testing.T) {
	l := newLimiter(Limits{Records: 5000})
	var part bucket
	if g, _ := l.try(1e12, &part, 64, 1); g.records != 1 {
		t.Errorf("granted %d at once", g.records)
	}
}

func TestNoLimitGrantsAll(t *testing.T) {
	l := newLimiter(Limits{})
	var part bucket
	g, wait := l.try(0, &part, 65, 1)
	if g.records != 65 || wait != 0 || !math.IsInf(g.bytes, 1) {
		t.Errorf("grant %v, wait %v", g, wait)
	}
}

func TestBackoffGrowsToItsBound(t *testing.T) {
	var waits []time.Duration
	for i := range 12 {
		waits = append(waits, backoff(i))
	}
	if !slices.IsSorted(waits) || waits[0] != 50*time.Millisecond || waits[11] != maxBackoff {
		t.Errorf("waits %v", waits)
	}
}
