package receiver

import (
	"testing"
	"time"

	"forebay/internal/record"
)

// TestBeyondTheEndCountsAfterThreeChecks: only three checks over the wait make
// a lost end certain; an expired offset is certain at once.
func TestBeyondTheEndCountsAfterThreeChecks(t *testing.T) {
	const wait = 9 * time.Second
	t0 := time.Unix(1000, 0)
	if o := examine(nil, 5, 10, 20, t0, wait); o == nil || o.reason != record.AdvanceExpired || !o.certain(wait) || o.resume(Earliest) != 10 || o.resume(Latest) != 20 {
		t.Errorf("expired: %+v", o)
	}
	for next, in := range map[int64]bool{9: false, 10: true, 20: true, 21: false} {
		if (examine(nil, next, 10, 20, t0, wait) == nil) != in {
			t.Errorf("offset %d in [10, 20]: want %v", next, in)
		}
	}
	var o *outOfRange
	for i, at := range []time.Duration{0, 1, 2, 3, 4, 5, 6, 7} {
		o = examine(o, 25, 10, 20, t0.Add(at*time.Second), wait)
		if o.certain(wait) != (at >= 6) {
			t.Errorf("check %d, after %d s: certain %v", i, at, o.certain(wait))
		}
	}
	if o.resume(Earliest) != 20 || o.resume(Latest) != 20 {
		t.Errorf("a truncated partition resumes at %d", o.resume(Earliest))
	}
	if o := examine(o, 25, 10, 30, t0.Add(time.Minute), wait); o != nil {
		t.Errorf("the end came back: %+v", o)
	}
	if again := examine(o, 26, 10, 20, t0.Add(time.Minute), wait); again.certain(wait) {
		t.Error("another offset is another matter")
	}
}

func TestFirstOffset(t *testing.T) {
	for name, c := range map[string]struct {
		formation, known          bool
		committed, oldest, newest int64
		from                      string
		want                      int64
	}{
		"formed from the group":                {true, false, 70, 50, 100, Earliest, 70},
		"formed from an expired offset":        {true, false, 10, 50, 100, Earliest, 10},
		"formed without a commit":              {true, false, -1, 50, 100, Earliest, 50},
		"formed without a commit, from latest": {true, false, -1, 50, 100, Latest, 100},
		"a topic later":                        {false, false, 70, 50, 100, Latest, 50},
		"a partition later":                    {false, true, 70, 0, 100, Latest, 0},
		"a partition later, already expired":   {false, true, -1, 3, 100, Earliest, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := firstOffset(c.formation, c.known, c.committed, c.oldest, c.newest, c.from); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}
