package receiver

import (
	"math"
	"testing"
	"time"
)

// asSarama does to a timestamp what RecordBatch.decode, Record.decode and
// parseRecords of sarama 1.61.1 do.
func asSarama(first, ms int64) time.Time {
	var t time.Time
	if first >= 0 {
		t = time.Unix(first/1000, (first%1000)*int64(time.Millisecond))
	}
	return t.Add(time.Duration(ms-first) * time.Millisecond) // wraps, as there
}

func TestTimestampsAreUnwrapped(t *testing.T) {
	const now = 1_763_700_000_123
	year := int64(365.25 * 24 * 3600 * 1000)
	for name, c := range map[string]struct{ first, ms int64 }{
		"usual":                            {now, now + 17},
		"0":                                {0, 0},
		"before 1970":                      {5, -86_400_000},
		"none":                             {-1, -1},
		"after one with none":              {-1, now},
		"before one with none":             {-1, -5000},
		"292 years on":                     {now, now + 292*year},
		"293 years on":                     {now, now + 293*year},
		"584 years on":                     {now, now + 585*year},
		"300 years back":                   {now, now - 300*year},
		"microseconds as milliseconds":     {now, now * 1000},
		"the other way round":              {now * 1000, now},
		"wrapped after one with none":      {-1, now * 1000},
		"4 million years":                  {now, 4_000_000 * year},
		"4 million years back":             {4_000_000 * year, now},
		"as far as it goes, alone":         {math.MaxInt64, math.MaxInt64},
		"nanoseconds, as all of its batch": {now * 1_000_000, now*1_000_000 + 999_999_999},
	} {
		t.Run(name, func(t *testing.T) {
			if got := timestampMillis(asSarama(c.first, c.ms)); got != c.ms {
				t.Errorf("got %d, want %d", got, c.ms)
			}
		})
	}
}

func FuzzTimestamps(f *testing.F) {
	f.Add(int64(0), int64(0))
	f.Add(int64(1_763_700_000_123), int64(1_763_700_000_123_000))
	f.Fuzz(func(t *testing.T, first, delta int64) {
		const reach = 4_500_000 * 365 * 24 * 3600 * 1000
		first = (first&math.MaxInt64)%(1<<60) - 1
		delta %= reach
		if first < 0 && delta == 0 {
			return
		}
		if got := timestampMillis(asSarama(first, first+delta)); got != first+delta {
			t.Errorf("first %d, delta %d: got %d, want %d", first, delta, got, first+delta)
		}
	})
}

func BenchmarkTimestamp(b *testing.B) {
	at := time.UnixMilli(1_763_700_000_123)
	for b.Loop() {
		timestampMillis(at)
	}
}
