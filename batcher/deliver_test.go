package batcher

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"forebay/internal/record"
)

var errDown = errors.New("connection refused")

func seqs(tries []try) []uint64 {
	var all []uint64
	for _, t := range tries {
		all = append(all, t.Seq)
	}
	return all
}

func times(tries []try) []time.Duration {
	var all []time.Duration
	for _, t := range tries {
		all = append(all, t.At)
	}
	return all
}

func seconds(all ...time.Duration) []time.Duration {
	for i := range all {
		all[i] *= time.Second
	}
	return all
}

func TestDeliversInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		l.batch("t", 1, 2)
		l.batch("t", 3)
		l.batch("t", 4)
		l.set("a", func(s *record.SinkState) { s.Cursor = 2 })
		r := run(t, testConfig(sink.config("a")), l)
		expect(t, "durable", sink.took(), []try{{Seq: 2, Offsets: []int64{3}}, {Seq: 3, Offsets: []int64{4}}})
		expect(t, "opened at", sink.nexts, []uint64{2})
		expect(t, "advanced", sink.advanced, []string{"3 1", "4 1"})
		expect(t, "batch", fmt.Sprint(sink.batch.ID, sink.batch.Gateway, sink.batch.LogID, sink.batch.Term, sink.batch.CutAt),
			fmt.Sprint("7-00000000000000000003", "gw", "1d", uint64(3), l.infos[2].CutAt))
		now := time.Now().UnixMilli()
		expect(t, "dones", l.dones, []record.Done{
			{Sink: "a", Seq: 2, Attempts: 1, StartedAt: now, DoneAt: now},
			{Sink: "a", Seq: 3, Attempts: 1, StartedAt: now, DoneAt: now},
		})
		r.end()
		expect(t, "closes", sink.closes, 1)
	})
}

func TestSameBatchAgainUntilTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		sink.write = failing(6, errDown)
		l.batch("t", 1, 2)
		l.batch("t", 3)
		r := run(t, testConfig(sink.config("a")), l)
		s := r.state("a")
		expect(t, "state", s.State, StateRetrying)
		expect(t, "error", s.LastError, errDown.Error())
		expect(t, "next retry", s.NextRetry.Equal(time.Now().Add(time.Second)), true)
		pass(2 * time.Second)
		expect(t, "retries", r.state("a").Retries, 2)
		pass(time.Minute)
		// 1, 2, 4, 8, 8, 8 seconds between the attempts: capped.
		expect(t, "times", times(sink.tried()), seconds(0, 1, 3, 7, 15, 23, 31, 31))
		for _, try := range sink.tried()[:7] {
			expect(t, "every attempt", fmt.Sprint(try.Seq, try.Offsets), "1 [1 2]")
		}
		expect(t, "durable", seqs(sink.took()), []uint64{1, 2})
		expect(t, "attempts in the done", l.dones[0].Attempts, 7)
		s = r.state("a")
		expect(t, "recovered", fmt.Sprint(s.State, s.Retries, s.LastError, s.Lag), fmt.Sprint(StateIdle, 0, "", 0))
		r.end()
	})
}

func TestBackoffStartsAnewAfterSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		sink.write = func(_ context.Context, n int) error {
			if n <= 2 || n == 4 {
				return errDown
			}
			return nil
		}
		l.batch("t", 1)
		l.batch("t", 2)
		r := run(t, testConfig(sink.config("a")), l)
		pass(time.Minute)
		expect(t, "times", times(sink.tried()), seconds(0, 1, 3, 3, 4))
		r.end()
	})
}

func TestDelayIsCappedAndNeverNegative(t *testing.T) {
	b := Backoff{Initial: time.Second, Max: 10 * time.Second, Multiplier: 3, Jitter: 0.5}
	for n, want := range map[int]time.Duration{0: 1, 1: 1, 2: 3, 3: 9, 4: 10, 5: 10, 100000: 10} {
		if got := b.delay(n, 0); got != want*time.Second {
			t.Errorf("delay after %d failures: %v, want %vs", n, got, int(want))
		}
		if got := b.delay(n, 0.999999); got < want*time.Second/2 || got > want*time.Second {
			t.Errorf("delay after %d failures with jitter: %v", n, got)
		}
	}
}

func TestHangEndsAtTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		sink.before = func(ctx context.Context, n int) error {
			if n == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		l.batch("t", 1)
		r := run(t, testConfig(sink.config("a")), l)
		pass(29 * time.Second)
		expect(t, "state", r.state("a").State, StateDelivering)
		pass(time.Second)
		expect(t, "error", r.state("a").LastError, "no success within 30s: context deadline exceeded")
		pass(time.Second)
		expect(t, "durable", seqs(sink.took()), []uint64{1})
		r.end()
	})
}

func TestCallThatDoesNotReturnIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a", "b"), newFakeSink()
		other := newFakeSink()
		stuck := make(chan struct{})
		sink.before = func(_ context.Context, n int) error {
			if n == 1 {
				<-stuck
			}
			return nil
		}
		var out transcript
		cfg := testConfig(sink.config("a"), other.config("b"))
		cfg.Logger = textLogger(&out)
		r := run(t, cfg, l)
		l.batch("t", 1)
		pass(39 * time.Second)
		expect(t, "said too early", strings.Contains(out.String(), "does not return"), false)
		pass(2 * time.Second)
		expect(t, "said", strings.Count(out.String(), "does not return"), 1)
		expect(t, "no second call meanwhile", len(sink.tried()), 1)
		expect(t, "the other sink", seqs(other.took()), []uint64{1})
		close(stuck)
		synctest.Wait()
		expect(t, "state", r.state("a").State, StateRetrying)
		pass(time.Second)
		expect(t, "durable", seqs(sink.took()), []uint64{1})
		r.end()
	})
}

func TestSuccessAfterTheTimeoutCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		sink.write = func(context.Context, int) error { time.Sleep(time.Minute); return nil }
		l.batch("t", 1)
		r := run(t, testConfig(sink.config("a")), l)
		pass(time.Hour)
		expect(t, "tries", len(sink.tried()), 1)
		expect(t, "cursor", l.cursor("a"), 2)
		r.end()
	})
}

func TestSlowSinkHoldsNeitherCutsNorOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		epoch := time.Now()
		l, dead, slow, fast := newFakeLog("dead", "slow", "fast"), newFakeSink(), newFakeSink(), newFakeSink()
		dead.write = failing(1e9, errDown)
		slow.before = func(context.Context, int) error { time.Sleep(12 * time.Second); return nil }
		r := run(t, testConfig(dead.config("dead"), slow.config("slow"), fast.config("fast")), l)
		for i := range 4 {
			l.accept("t", int64(i))
			pass(5 * time.Second)
		}
		pass(time.Second)
		expect(t, "cuts", l.cutsSince(epoch), seconds(5, 10, 15, 20))
		expect(t, "fast", times(fast.took()), seconds(5, 10, 15, 20))
		expect(t, "slow", times(slow.took()), seconds(17))
		var lags []uint64
		for _, s := range r.Status() {
			lags = append(lags, s.Lag)
		}
		expect(t, "lags", lags, []uint64{4, 3, 0})
		r.end()
	})
}

func TestPermanentErrorStopsThatSinkOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, bad, good := newFakeLog("bad", "good"), newFakeSink(), newFakeSink()
		bad.write = failing(1, permanentErr{errors.New("table is missing")})
		r := run(t, testConfig(bad.config("bad"), good.config("good")), l)
		l.batch("t", 1)
		l.batch("t", 2)
		pass(24 * time.Hour)
		expect(t, "tries", seqs(bad.tried()), []uint64{1})
		expect(t, "good", seqs(good.took()), []uint64{1, 2})
		s := r.state("bad")
		expect(t, "state", fmt.Sprint(s.State, s.LastError, s.NextRetry.IsZero()), fmt.Sprint(StateFailed, "table is missing", true))
		expect(t, "closed, so that the destination can be repaired", bad.open, false)
		if err := r.Resume("bad"); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		expect(t, "after resume", seqs(bad.took()), []uint64{1, 2})
		expect(t, "opened anew", bad.opens, 2)
		if err := r.Resume("nobody"); !errors.Is(err, ErrUnknownSink) {
			t.Errorf("Resume of an unknown sink: %v", err)
		}
		r.end()
		expect(t, "contract", bad.brokenContract, "")
	})
}

func TestResumeOfAHealthySinkIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		sink.write = failing(1, errDown)
		r := run(t, testConfig(sink.config("a")), l)
		_ = r.Resume("a")
		l.batch("t", 1)
		pass(500 * time.Millisecond)
		expect(t, "tries", len(sink.tried()), 1)
		_ = r.Resume("a")
		synctest.Wait()
		expect(t, "durable at once", times(sink.took()), []time.Duration{500 * time.Millisecond})
		r.end()
	})
}

// A resume that comes together with a pause is not kept for a later failure. Which
// of the two is seen first is left to chance: hence the repetition.
func TestResumeIsNotKeptForTheNextFailure(t *testing.T) {
	for range 30 {
		synctest.Test(t, func(t *testing.T) {
			l, sink := newFakeLog("a"), newFakeSink()
			sink.write = failing(1e9, errDown)
			l.batch("t", 1)
			r := run(t, testConfig(sink.config("a")), l)
			l.set("a", func(s *record.SinkState) { s.Paused = true })
			_ = r.Resume("a")
			synctest.Wait()
			expect(t, "state", r.state("a").State, StatePaused)
			l.set("a", func(s *record.SinkState) { s.Paused = false })
			synctest.Wait()
			expect(t, "tries", len(sink.tried()), 2)
			r.end()
		})
	}
}

func TestPanicIsTheSinksFailure(t *testing.T) {
	for name, set := range map[string]func(*fakeSink){
		"in Deliver":          func(s *fakeSink) { s.write = func(context.Context, int) error { panic("boom") } },
		"in a reading":        func(s *fakeSink) { s.refuse = func(*record.Record) string { panic("boom") } },
		"in Advanced":         func(s *fakeSink) { s.advance = func(_, _ record.BatchID) error { panic("boom") } },
		"in Open":             func(s *fakeSink) { s.opening = func(int) error { panic("boom") } },
		"with an error value": func(s *fakeSink) { s.write = func(context.Context, int) error { panic(errors.New("boom")) } },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, sink, good := newFakeLog("a", "good"), newFakeSink(), newFakeSink()
				set(sink)
				var out transcript
				cfg := testConfig(sink.config("a"), good.config("good"))
				cfg.Logger = textLogger(&out)
				r := run(t, cfg, l)
				l.batch("t", 1)
				pass(time.Hour)
				s := r.state("a")
				expect(t, "state", fmt.Sprint(s.State, " ", s.LastError), "failed the sink's code panicked: boom")
				expect(t, "stack in the log", strings.Contains(out.String(), "goroutine"), true)
				expect(t, "the other sink", seqs(good.took()), []uint64{1})
				r.end()
			})
		})
	}
}

func TestPanicOfTheLogIsNotTheSinks(t *testing.T) {
	for name, set := range map[string]func(*fakeLog, *fakeSink){
		"in Read":   func(l *fakeLog, _ *fakeSink) { l.onRead = func() { panic("broken log") } },
		"in Refuse": func(l *fakeLog, _ *fakeSink) { l.onRefuse = func(context.Context) error { panic("broken log") } },
	} {
		t.Run(name, func(t *testing.T) {
			l, sink := newFakeLog("a"), newFakeSink()
			sink.refuse = func(*record.Record) string { return "ugly" }
			set(l, sink)
			l.batch("t", 1)
			cfg := sink.config("a")
			cfg.Refused = Drop
			b, err := New(testConfig(cfg), l)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { expect(t, "panic", recover(), any("broken log")) }()
			err = b.sinks[0].deliver(t.Context(), 1)
			t.Errorf("deliver returned %v", err)
		})
	}
}

func TestOpeningIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		sink.opening = func(n int) error {
			if n <= 3 {
				return errDown
			}
			return nil
		}
		l.batch("t", 1)
		r := run(t, testConfig(sink.config("a")), l)
		expect(t, "state", r.state("a").State, StateRetrying)
		pass(time.Minute)
		expect(t, "durable", times(sink.took()), seconds(7))
		r.end()
	})
}

func TestForeignDestinationStopsThatSinkOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink, good := newFakeLog("a", "good"), newFakeSink(), newFakeSink()
		sink.opening = func(int) error { return permanentErr{errors.New("belongs to log 2e")} }
		r := run(t, testConfig(sink.config("a"), good.config("good")), l)
		expect(t, "said before there is a batch", r.state("a").State, StateFailed)
		l.batch("t", 1)
		pass(time.Hour)
		expect(t, "opens", sink.opens, 1)
		expect(t, "tries", len(sink.tried()), 0)
		expect(t, "good", len(good.took()), 1)
		r.end()
	})
}

func TestRouting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		cfg := sink.config("a")
		cfg.Topics = []string{"clicks"}
		l.accept("views", 1, 2)
		l.batch("clicks", 8)
		l.batch("views", 3)
		r := run(t, testConfig(cfg), l)
		expect(t, "durable", sink.took(), []try{{Seq: 1, Offsets: []int64{8}}, {Seq: 2}})
		expect(t, "cursor", l.cursor("a"), 3)
		r.end()
	})
}

func TestPauseAndResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		sink.before = func(context.Context, int) error { time.Sleep(10 * time.Second); return nil }
		l.batch("t", 1)
		l.batch("t", 2)
		r := run(t, testConfig(sink.config("a")), l)
		pass(time.Second)
		l.set("a", func(s *record.SinkState) { s.Paused = true })
		synctest.Wait()
		expect(t, "the current batch goes on", r.state("a").State, StateDelivering)
		pass(time.Hour)
		expect(t, "durable", seqs(sink.took()), []uint64{1})
		expect(t, "state", r.state("a").State, StatePaused)
		l.set("a", func(s *record.SinkState) { s.Paused = false })
		pass(10 * time.Second)
		expect(t, "durable", seqs(sink.took()), []uint64{1, 2})
		r.end()
	})
}

func TestPauseEndsABackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		sink.write = failing(3, errDown)
		l.batch("t", 1)
		r := run(t, testConfig(sink.config("a")), l)
		l.set("a", func(s *record.SinkState) { s.Paused = true })
		synctest.Wait()
		expect(t, "state at once", r.state("a").State, StatePaused)
		expect(t, "no retry is announced", r.state("a").NextRetry.IsZero(), true)
		pass(time.Hour)
		expect(t, "tries", len(sink.tried()), 1)
		l.set("a", func(s *record.SinkState) { s.Paused = false })
		pass(time.Minute)
		expect(t, "durable", seqs(sink.took()), []uint64{1})
		r.end()
	})
}

func TestRemovedSinkStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		sink.before = func(context.Context, int) error { time.Sleep(10 * time.Second); return nil }
		l.batch("t", 1)
		l.batch("t", 2)
		r := run(t, testConfig(sink.config("a")), l)
		l.remove("a")
		pass(time.Hour)
		expect(t, "state", r.state("a").State, StateRemoved)
		expect(t, "tries", len(sink.tried()), 1)
		expect(t, "dones", l.doneCount(), 0)
		r.end()
	})
}

func TestReleasedBatchIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		l.batch("t", 1)
		l.set("a", func(s *record.SinkState) { s.Cursor = 0 })
		r := run(t, testConfig(sink.config("a")), l)
		pass(time.Minute)
		expect(t, "state", r.state("a").State, StateRetrying)
		expect(t, "error", r.state("a").LastError, "batch : no longer in the log")
		expect(t, "tries", len(sink.tried()), 0)
		r.end()
	})
}

func TestHistoryAndDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		sink.before = func(context.Context, int) error { time.Sleep(2 * time.Second); return nil }
		sink.write = failing(1, errDown)
		l.batch("t", 1) // by an earlier leader
		pass(4 * time.Second)
		start := time.Now()
		cfg := testConfig(sink.config("a"))
		cfg.History = 2
		r := run(t, cfg, l)
		l.accept("t", 2) // cut at 5 s, while 1 is delivered from 4 s to 9 s
		pass(2500 * time.Millisecond)
		expect(t, "retrying", r.Deliveries(1), []Delivery{{
			Batch: record.BatchID{Lane: 7, Seq: 1}, Sink: "a", State: StateRetrying, Attempts: 1,
			Error: "connection refused", StartedAt: start, SchedulingDelay: 4 * time.Second,
		}})
		pass(time.Minute)
		first := Delivery{
			Batch: record.BatchID{Lane: 7, Seq: 1}, Sink: "a", State: StateDone, Attempts: 2, Error: "connection refused",
			StartedAt: start, DoneAt: start.Add(5 * time.Second),
			SchedulingDelay: 4 * time.Second, ProcessingTime: 5 * time.Second, TotalDelay: 9 * time.Second,
		}
		second := Delivery{
			Batch: record.BatchID{Lane: 7, Seq: 2}, Sink: "a", State: StateDone, Attempts: 1,
			StartedAt: start.Add(5 * time.Second), DoneAt: start.Add(7 * time.Second),
			SchedulingDelay: 4 * time.Second, ProcessingTime: 2 * time.Second, TotalDelay: 6 * time.Second,
		}
		expect(t, "recent", r.Recent("a", 10), []Delivery{second, first})
		expect(t, "newest", r.Recent("a", 1), []Delivery{second})
		l.batch("t", 3)
		pass(time.Minute)
		expect(t, "bounded", r.Deliveries(1), []Delivery(nil))
		expect(t, "kept", r.Deliveries(2), []Delivery{second})
		r.end()
	})
}
