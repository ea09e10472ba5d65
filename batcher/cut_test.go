package batcher

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"forebay/internal/record"
)

func TestDue(t *testing.T) {
	s := schedule{interval: 5 * time.Second, first: 2 * time.Second, maxBytes: 100, maxRecords: 10}
	for _, tc := range []struct {
		name   string
		open   record.OpenBatch
		since  time.Duration
		held   bool
		want   time.Duration
		why    cause
		wantOK bool
	}{
		{name: "nothing came", open: record.OpenBatch{}, since: unset},
		{"before the first boundary", record.OpenBatch{Records: 1}, 0, false, 2 * time.Second, causeInterval, true},
		{"at a boundary belongs to the next", record.OpenBatch{Records: 1}, 2 * time.Second, false, 7 * time.Second, causeInterval, true},
		{"in the middle", record.OpenBatch{Records: 1}, 8 * time.Second, false, 12 * time.Second, causeInterval, true},
		{"full by bytes", record.OpenBatch{Records: 1, Bytes: 100}, time.Second, false, time.Second, causeBytes, true},
		{"not full by bytes", record.OpenBatch{Records: 1, Bytes: 99}, time.Second, false, 2 * time.Second, causeInterval, true},
		{"full by records", record.OpenBatch{Records: 10, Bytes: 1}, time.Second, false, time.Second, causeRecords, true},
		{"no room for more", record.OpenBatch{Records: 1}, time.Second, true, time.Second, causeRoom, true},
		{"no room, and nothing came", record.OpenBatch{}, unset, true, 0, "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			at, why, ok := s.due(tc.open, tc.since, tc.held)
			if ok != tc.wantOK || ok && (at != tc.want || why != tc.why) {
				t.Errorf("due = %v %q %v, want %v %q %v", at, why, ok, tc.want, tc.why, tc.wantOK)
			}
		})
	}
}

func TestBoundariesAreMultiplesOfTheInterval(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		interval := time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(t, "interval"))
		wall := time.Unix(0, rapid.Int64Range(-1e18, 4e18).Draw(t, "wall"))
		after := time.Duration(rapid.Int64Range(0, int64(48*time.Hour)).Draw(t, "after"))
		s := newSchedule(&Config{Interval: interval}, wall)
		b := s.boundary(after)
		if b <= after || b > after+interval {
			t.Fatalf("boundary after %v is %v, interval %v", after, b, interval)
		}
		if wall.Add(b).UnixNano()%int64(interval) != 0 {
			t.Fatalf("%v is no multiple of %v", wall.Add(b), interval)
		}
	})
}

func TestCutTimeGrows(t *testing.T) {
	wall := time.UnixMilli(1000)
	for _, tc := range []struct {
		name       string
		last, want int64
	}{{"first", 0, 1000}, {"clock ahead of the last", 999, 1000}, {"same millisecond", 1000, 1001}, {"clock set back", 5000, 5001}} {
		if got := cutAt(wall, record.OpenBatch{LastCutAt: tc.last}); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}

// cutsSince tells when the cuts were, since a time.
func (l *fakeLog) cutsSince(t time.Time) []time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []time.Duration
	for _, c := range l.cuts {
		all = append(all, c.Sub(t))
	}
	return all
}

func expect[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestCutsFallOnMultiplesOfTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		epoch := time.Now() // a multiple of any interval
		pass(3200 * time.Millisecond)
		l := newFakeLog()
		r := run(t, testConfig(), l)
		l.accept("t", 1)
		pass(time.Second)
		l.accept("t", 2)
		pass(7 * time.Second) // 11.2 s; nothing between 5 and 10
		l.accept("t", 3)
		pass(10 * time.Second)
		expect(t, "cuts", l.cutsSince(epoch), []time.Duration{5 * time.Second, 15 * time.Second})
		expect(t, "records of batch 1", len(l.batches[0]), 2)
		r.end()
	})
}

func TestIdleProposesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		r := run(t, testConfig(sink.config("a")), l)
		before := l.callCount()
		pass(24 * time.Hour)
		expect(t, "calls of the log on an idle day", l.callCount()-before, 0)
		l.accept("t", 1)
		pass(5 * time.Second)
		before = l.callCount()
		pass(24 * time.Hour)
		expect(t, "calls of the log on an idle day after traffic", l.callCount()-before, 0)
		expect(t, "batches", len(l.batches), 1)
		r.end()
	})
}

func TestCutsEarly(t *testing.T) {
	for name, bound := range map[string]func(*Config){
		"by records": func(c *Config) { c.MaxRecords = 3 },
		"by bytes":   func(c *Config) { c.MaxBytes = 9 }, // three values of "t-n"
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				epoch := time.Now()
				l := newFakeLog()
				cfg := testConfig()
				bound(&cfg)
				r := run(t, cfg, l)
				pass(time.Second)
				l.accept("t", 1, 2)
				pass(time.Second)
				l.accept("t", 3)
				pass(time.Second)
				l.accept("t", 4)
				pass(10 * time.Second)
				expect(t, "cuts", l.cutsSince(epoch), []time.Duration{2 * time.Second, 5 * time.Second})
				r.end()
			})
		})
	}
}

// A log without room holds its intake, and only delivered batches make room: what
// is open must not wait hours for its boundary.
func TestAFullLogCutsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		epoch := time.Now()
		l := newFakeLog()
		cfg := testConfig()
		cfg.Interval = time.Hour
		r := run(t, cfg, l)
		l.accept("t", 1)
		pass(time.Second)
		l.hold("wal.maxBytes")
		pass(time.Second)
		l.accept("t", 2) // was in flight
		pass(time.Minute)
		before := l.callCount()
		pass(time.Hour)
		expect(t, "calls of the log while the intake is held and nothing is open", l.callCount()-before, 0)
		l.hold("")
		l.accept("t", 3)
		pass(time.Hour)
		expect(t, "cuts", l.cutsSince(epoch), append(seconds(1, 2), 2*time.Hour))
		r.end()
	})
}

// HARD-CASES 8, FAULTS 25.
func TestClockAnHourAheadOrBack(t *testing.T) {
	for name, jump := range map[string]time.Duration{"ahead": time.Hour, "back": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				epoch := time.Now()
				var offset atomic.Int64
				l, sink := newFakeLog("a"), newFakeSink()
				cfg := testConfig(sink.config("a"))
				cfg.Clock = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
				r := run(t, cfg, l)
				var want []time.Duration
				for i := range 6 {
					l.accept("t", int64(i))
					if i == 3 {
						offset.Store(int64(jump))
					}
					pass(5 * time.Second)
					want = append(want, time.Duration(i+1)*5*time.Second)
				}
				expect(t, "cuts", l.cutsSince(epoch), want)
				for i := 1; i < len(l.infos); i++ {
					if l.infos[i].CutAt <= l.infos[i-1].CutAt {
						t.Errorf("cut times do not grow: %d, %d", l.infos[i-1].CutAt, l.infos[i].CutAt)
					}
				}
				for _, d := range r.Recent("a", 10) {
					if d.TotalDelay != 0 {
						t.Errorf("a clock that was set shows as a delay of %v", d.TotalDelay)
					}
				}
				expect(t, "deliveries", len(sink.took()), 6)
				r.end()
			})
		})
	}
}

func TestClockSetBetweenCutAndDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var offset atomic.Int64
		l, sink := newFakeLog("a"), newFakeSink()
		sink.before = func(_ context.Context, n int) error {
			if n == 1 {
				time.Sleep(7 * time.Second) // from 5 s to 12 s
			}
			return nil
		}
		cfg := testConfig(sink.config("a"))
		cfg.Clock = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
		r := run(t, cfg, l)
		l.accept("t", 1)
		pass(6 * time.Second)
		l.accept("t", 2) // cut at 10 s
		pass(5 * time.Second)
		offset.Store(int64(time.Hour))
		pass(5 * time.Second)
		expect(t, "scheduling delay", r.Deliveries(2)[0].SchedulingDelay, 2*time.Second)
		r.end()
	})
}

func TestOpenBatchOfTheLastLeaderIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		epoch := time.Now()
		l := newFakeLog()
		l.accept("t", 1)
		pass(time.Second)
		r := run(t, testConfig(), l)
		pass(10 * time.Second)
		expect(t, "cuts", l.cutsSince(epoch), []time.Duration{5 * time.Second})
		r.end()
	})
}

func TestSlowCutKeepsTheBoundaries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		epoch := time.Now()
		l, first := newFakeLog(), true
		l.onCut = func() error {
			if first {
				first = false
				time.Sleep(7 * time.Second) // 5 s to 12 s
			}
			return nil
		}
		r := run(t, testConfig(), l)
		l.accept("t", 1)
		pass(13 * time.Second)
		l.accept("t", 2)
		pass(10 * time.Second)
		expect(t, "cuts", l.cutsSince(epoch), []time.Duration{12 * time.Second, 15 * time.Second})
		r.end()
	})
}

func TestRecordsThatComeDuringACutBelongToTheNextInterval(t *testing.T) {
	for name, tc := range map[string]struct {
		took time.Duration
		want []time.Duration
	}{
		"quick cut": {0, seconds(5, 10)},
		"cut that outlasts the next one's boundary": {7 * time.Second, seconds(5, 12)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				epoch := time.Now()
				l, first := newFakeLog(), true
				l.afterCut = func() {
					if first {
						first = false
						l.accept("t", 2)
						time.Sleep(tc.took)
					}
				}
				r := run(t, testConfig(), l)
				l.accept("t", 1)
				pass(time.Minute)
				expect(t, "cuts", l.cutsSince(epoch), tc.want)
				r.end()
			})
		})
	}
}

func TestFailedCutIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		epoch := time.Now()
		l, n := newFakeLog(), 0
		l.onCut = func() error {
			if n++; n <= 3 {
				return record.ErrRefused
			}
			return nil
		}
		r := run(t, testConfig(), l)
		l.accept("t", 1)
		pass(10 * time.Second)
		// 50, 100 and 200 ms of backoff.
		expect(t, "cuts", l.cutsSince(epoch), []time.Duration{5350 * time.Millisecond})
		r.end()
	})
}

func TestLeadLostAtACutEndsTheTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		l.onCut = func() error { return record.ErrLeadLost }
		r := run(t, testConfig(sink.config("a")), l)
		l.accept("t", 1)
		if err := <-r.result; !errors.Is(err, record.ErrLeadLost) {
			t.Errorf("Run returned %v", err)
		}
		expect(t, "closes", sink.closes, 1)
		r.cancel(nil)
	})
}
