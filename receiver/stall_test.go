package receiver

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// late is how late claims wake, in nanoseconds.
type late func(*rand.Rand) float64

// stalls are wakes of which one in so many comes late, by this much.
func stalls(one int, by time.Duration) late {
	return func(rng *rand.Rand) float64 {
		if rng.IntN(one) == 0 {
			return float64(by)
		}
		return 0
	}
}

// once is a single late wake.
func once(nth int, by time.Duration) late {
	n := 0
	return func(*rand.Rand) float64 {
		if n++; n == nth {
			return float64(by)
		}
		return 0
	}
}

// TestStallsAreMadeGood: a machine that wakes claims late takes no more than the cap in
// any window, loses nothing by wakes up to the burst late, and catches up on the rest
// as long as that is less than half a percent of the time.
func TestStallsAreMadeGood(t *testing.T) {
	const second, seconds = float64(time.Second), 60
	for _, rate := range []float64{500, 5000, 100_000} {
		for name, c := range map[string]struct {
			claims int
			late   late
			least  float64 // share of the rate over all
		}{
			"8 ms each time":            {1, func(rng *rand.Rand) float64 { return rng.Float64() * 8e6 }, 0.999},
			"16 ms each time":           {1, func(rng *rand.Rand) float64 { return rng.Float64() * 16e6 }, 0.94},
			"25 ms each time, 4 claims": {4, func(rng *rand.Rand) float64 { return rng.Float64() * 25e6 }, 0.998},
			"50 ms, now and then":       {4, stalls(100, 50*time.Millisecond), 0.998},
			"200 ms, once":              {1, once(1000, 200*time.Millisecond), 0.9995},
			"all the time":              {1, stalls(3, 50*time.Millisecond), 0},
		} {
			t.Run(fmt.Sprintf("rate=%v/%s", rate, name), func(t *testing.T) {
				t.Parallel()
				events := drainLate(newLimiter(Limits{Records: rate}), c.claims, 100, seconds*second, c.late)
				total := 0.0
				for _, e := range events {
					total += e.units
				}
				if total < c.least*seconds*rate {
					t.Errorf("%.4f of the rate over all, at least %v", total/seconds/rate, c.least)
				}
				for window, most := range map[float64]float64{second: 1.024, 5 * second: 1.009} {
					if got := busiest(events, window) / (window / second) / rate; got > most {
						t.Errorf("%.4f of the rate in some %v, at most %v", got, time.Duration(window), most)
					}
				}
			})
		}
	}
}

// TestIdleTimeIsNotMadeGood: only what was wanted and not given is owed.
func TestIdleTimeIsNotMadeGood(t *testing.T) {
	const second, rate = float64(time.Second), 5000
	l := newLimiter(Limits{Records: rate})
	var part bucket
	for now := 0.0; now < second; now += 5e6 { // a trickle, below the rate
		g, wait := l.try(now, &part, 1, 100)
		if wait != 0 {
			t.Fatalf("a trickle waits %v", wait)
		}
		l.settle(now, &part, g, 1, 100)
	}
	taken := 0
	for now := 100 * second; now < 101*second; now += 1e6 {
		for {
			g, wait := l.try(now, &part, channelBuffer, 100)
			if wait > 0 {
				break
			}
			l.settle(now, &part, g, g.records, 100*g.records)
			taken += g.records
		}
	}
	if most := rate*1.0101 + 1; float64(taken) > most {
		t.Errorf("%d records in the second after the idle time, at most %v", taken, most)
	}
}
