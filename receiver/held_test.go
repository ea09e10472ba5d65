package receiver

import (
	"testing"
	"time"
)

// TestHeldByTheCapThatBinds: what comes in bursts below the cap is not held by it,
// however often a claim waits a moment; a backlog is, and soon no more when it is gone.
func TestHeldByTheCapThatBinds(t *testing.T) {
	const ms, second = float64(time.Millisecond), float64(time.Second)
	// taking lets so many records come every 20 ms, for a time, and gives what held
	// them at the end of each of its last seconds' milliseconds.
	taking := func(from, seconds float64, burst int, l *limiter) map[string]int {
		var part bucket
		held := map[string]int{}
		waiting, wake := 0, from
		for now := from; now < from+seconds*second; now += ms {
			if int((now-from)/ms)%20 == 0 {
				waiting += burst
			}
			for waiting > 0 && wake <= now {
				g, wait := l.try(now, &part, min(waiting, channelBuffer), 100)
				if wait > 0 {
					wake = now + float64(wait)
					break
				}
				l.settle(now, &part, g, g.records, 100*g.records)
				waiting -= g.records
			}
			if now >= from+(seconds-1)*second {
				held[l.heldBy(now)]++
			}
		}
		return held
	}
	for name, c := range map[string]struct {
		limits Limits
		burst  int // every 20 ms
		want   string
	}{
		"far below":                     {Limits{Records: 5000}, 60, ""},
		"almost at it":                  {Limits{Records: 5000}, 99, heldMaxRate},
		"backlog":                       {Limits{Records: 5000}, 200, heldMaxRate},
		"backlog at one a second":       {Limits{Records: 1}, 1, heldMaxRate},
		"backlog at a high rate":        {Limits{Records: 100_000}, 4000, heldMaxRate},
		"bytes":                         {Limits{Records: 5000, Bytes: 1e5}, 60, heldMaxBytesRate},
		"partition":                     {Limits{Records: 5000, PerPartition: 100}, 60, heldMaxRatePerPartition},
		"a trickle, a record at a time": {Limits{Records: 100}, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLimiter(c.limits)
			if held := taking(0, 6, c.burst, l); held[c.want] != 1000 {
				t.Errorf("held by %v, want %q all the time", held, c.want)
			}
			if by := l.heldBy(8 * second); by != "" {
				t.Errorf("two seconds later still held by %q", by)
			}
		})
	}
}
