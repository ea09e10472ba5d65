package replicate

import (
	"testing"
	"time"
)

// steps gives n batches cut a second apart, of 10 bytes each; the log can go up to the
// batches that snapshots allow.
func steps(first, last, delivered uint64, snapshotEvery int64) batchView {
	return batchView{
		first: first, last: last, delivered: delivered,
		cutAt: func(seq uint64) int64 { return int64(seq) * 1000 },
		freed: func(seq uint64) int64 { return 10 * (int64(seq-first+1) / snapshotEvery * snapshotEvery) },
	}
}

func TestDueByTime(t *testing.T) {
	for _, tt := range []struct {
		name      string
		view      batchView
		retention time.Duration
		now       int64
		want      uint64
	}{
		{"nothing kept", steps(5, 4, 4, 1), time.Second, 100_000, 0},
		{"nothing cut", steps(1, 0, 0, 1), time.Second, 100_000, 0},
		{"none old enough", steps(1, 9, 9, 1), time.Minute, 60_999, 0},
		{"exactly old enough", steps(1, 9, 9, 1), time.Minute, 61_000, 1},
		{"some old enough", steps(1, 9, 9, 1), time.Minute, 64_500, 4},
		{"all old enough", steps(1, 9, 9, 1), time.Minute, 1_000_000, 9},
		{"only delivered ones", steps(1, 9, 3, 1), time.Minute, 1_000_000, 3},
		{"none delivered", steps(1, 9, 0, 1), time.Minute, 1_000_000, 0},
		{"delivered before the first kept", steps(4, 9, 3, 1), time.Minute, 1_000_000, 0},
		{"a clock that went back", steps(1, 9, 9, 1), time.Minute, -1_000_000, 0},
		{"no retention", steps(1, 9, 9, 1), 0, 5_000, 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := dueByTime(tt.view, tt.retention, tt.now); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestDueByRoom(t *testing.T) {
	maxBytes := limits{maxBytes: 160} // released down to 150
	minFree := limits{minFree: 80}    // released up to 90
	maxBatches := limits{maxBatches: 16}
	for _, tt := range []struct {
		name   string
		view   batchView
		limits limits
		usage  usage
		want   uint64
	}{
		{"no limits", steps(1, 9, 9, 1), limits{}, usage{bytes: 1 << 40}, 0},
		{"below the bound", steps(1, 9, 9, 1), maxBytes, usage{bytes: 150}, 0},
		{"as few as help", steps(1, 9, 9, 1), maxBytes, usage{bytes: 161}, 2},
		{"up to a snapshot", steps(1, 9, 9, 4), maxBytes, usage{bytes: 161}, 4},
		{"all when that is not enough", steps(1, 9, 9, 1), maxBytes, usage{bytes: 1000}, 9},
		{"not more than frees anything", steps(1, 9, 9, 4), maxBytes, usage{bytes: 1000}, 8},
		{"nothing where nothing is freed", steps(1, 9, 9, 10), maxBytes, usage{bytes: 1000}, 0},
		{"never undelivered ones", steps(1, 9, 2, 1), maxBytes, usage{bytes: 1000}, 2},
		{"nothing delivered", steps(1, 9, 0, 1), maxBytes, usage{bytes: 1000}, 0},
		{"nothing delivered is left", steps(4, 9, 3, 1), maxBytes, usage{bytes: 1000}, 0},
		{"nothing kept", steps(4, 3, 3, 1), maxBytes, usage{bytes: 1000}, 0},
		{"enough free", steps(1, 9, 9, 1), minFree, usage{free: 90}, 0},
		{"too little free", steps(1, 9, 9, 1), minFree, usage{free: 65}, 3},
		{"few batches", steps(1, 14, 14, 1), maxBatches, usage{batches: 14}, 0},
		{"many batches", steps(1, 18, 18, 1), maxBatches, usage{batches: 18}, 4},
		{"many undelivered batches", steps(1, 18, 1, 1), maxBatches, usage{batches: 18}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := dueByRoom(tt.view, tt.limits, tt.usage); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestUsageAfterRelease(t *testing.T) {
	u := usage{bytes: 100, free: 50, batches: 9}
	for _, tt := range []struct {
		name string
		seq  uint64
		want usage
	}{
		{"nothing due", 0, u},
		{"three", 3, usage{bytes: 70, free: 80, batches: 6}},
		{"all", 9, usage{bytes: 10, free: 140, batches: 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := u.after(steps(1, 9, 9, 1), tt.seq); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestHeldBy(t *testing.T) {
	l := limits{maxBytes: 1000, minFree: 500, maxBatches: 100}
	fine := usage{bytes: 10, free: 1000, batches: 1}
	with := func(change func(*usage)) usage { u := fine; change(&u); return u }
	for _, tt := range []struct {
		name  string
		now   string
		usage usage
		want  string
	}{
		{"room", "", fine, ""},
		{"at maxBytes", "", with(func(u *usage) { u.bytes = 1000 }), HeldMaxBytes},
		{"just below maxBytes", "", with(func(u *usage) { u.bytes = 999 }), ""},
		{"held by maxBytes, just below", HeldMaxBytes, with(func(u *usage) { u.bytes = 981 }), HeldMaxBytes},
		{"held by maxBytes, enough below", HeldMaxBytes, with(func(u *usage) { u.bytes = 979 }), ""},
		{"below minFree", "", with(func(u *usage) { u.free = 499 }), HeldMinFree},
		{"at minFree", "", with(func(u *usage) { u.free = 500 }), ""},
		{"held by minFree, just above", HeldMinFree, with(func(u *usage) { u.free = 505 }), HeldMinFree},
		{"held by minFree, enough above", HeldMinFree, with(func(u *usage) { u.free = 511 }), ""},
		{"too many batches", "", with(func(u *usage) { u.batches = 100 }), HeldMaxBatches},
		{"one reason gives way to another", HeldMaxBytes, with(func(u *usage) { u.free = 0 }), HeldMinFree},
		{"no limits", "", usage{bytes: 1 << 40}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			limits := l
			if tt.name == "no limits" {
				limits.maxBytes, limits.minFree, limits.maxBatches = 0, 0, 0
			}
			if got := heldBy(tt.now, limits, tt.usage); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
