package batcher

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/record"
)

// odd refuses records of odd offsets.
func odd(rec *record.Record) string {
	if rec.Offset%2 == 1 {
		return "odd"
	}
	return ""
}

func refusing(policy Policy) (*fakeLog, *fakeSink, SinkConfig) {
	l, sink := newFakeLog("a"), newFakeSink()
	sink.refuse = odd
	cfg := sink.config("a")
	cfg.Refused = policy
	return l, sink, cfg
}

// FAULTS 33.
func TestBlockStopsAtTheRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink, cfg := refusing(Block)
		good := newFakeSink()
		l.sinks["good"] = &record.SinkState{Name: "good", Cursor: 1}
		l.batch("t", 2, 3, 5)
		r := run(t, testConfig(cfg, good.config("good")), l)
		s := r.state("a")
		expect(t, "state", s.State, StateBlocked)
		expect(t, "error", s.LastError, "record t/0@3 of batch 7-00000000000000000001 was refused: odd (and 1 more)")
		expect(t, "record", s.Blocked, &BlockedError{
			Batch: record.BatchID{Lane: 7, Seq: 1}, Count: 2,
			First: record.Refusal{RecordID: record.RecordID{Topic: "t", Offset: 3}, Reason: "odd"},
		})
		pass(10*time.Minute + time.Second)
		expect(t, "tries by itself", len(sink.tried()), 11)
		expect(t, "durable", len(sink.took()), 0)
		expect(t, "refused", l.refused, []string(nil))
		expect(t, "the other sink", seqs(good.took()), []uint64{1})
		sink.accepting()
		_ = r.Resume("a")
		synctest.Wait()
		expect(t, "durable after resume", sink.took()[0].Offsets, []int64{2, 3, 5})
		expect(t, "nothing blocks", r.state("a").Blocked, (*BlockedError)(nil))
		r.end()
	})
}

func TestParkAndDropLeaveOut(t *testing.T) {
	for policy, want := range map[Policy]string{Park: "a 1 false [3 5]", Drop: "a 1 true [3 5]"} {
		t.Run(string(policy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, sink, cfg := refusing(policy)
				l.batch("t", 2, 3, 4, 5)
				r := run(t, testConfig(cfg), l)
				expect(t, "refused", l.refused, []string{want})
				expect(t, "durable", sink.took(), []try{{Seq: 1, Offsets: []int64{2, 4}}})
				expect(t, "state", r.state("a").State, StateIdle)
				r.end()
			})
		})
	}
}

func TestRefusalIsDurableBeforeTheBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink, cfg := refusing(Park)
		l.batch("t", 1, 2)
		refused := make(chan struct{})
		l.onRefuse = func(context.Context) error { <-refused; return nil }
		r := run(t, testConfig(cfg), l)
		pass(time.Second)
		expect(t, "durable while the log has not answered", len(sink.took()), 0)
		close(refused)
		synctest.Wait()
		expect(t, "durable", len(sink.took()), 1)
		r.end()
	})
}

// HARD-CASES 24: a crash after the refusal is in the log and before the batch is
// durable; the next leader leaves out exactly what is recorded, even if the sink would take it by now.
func TestCrashBetweenRefuseAndDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink, cfg := refusing(Park)
		sink.write = func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() }
		l.batch("t", 1, 2, 3)
		run(t, testConfig(cfg), l).end()
		expect(t, "refused", l.refused, []string{"a 1 false [1 3]"})
		expect(t, "cursor", l.cursor("a"), 1)

		again := newFakeSink() // the mapping was mended: it refuses nothing
		next := again.config("a")
		r := run(t, testConfig(next), l)
		expect(t, "read by the second attempt", again.tried()[0].Offsets, []int64{2})
		expect(t, "durable", again.took(), []try{{Seq: 1, Offsets: []int64{2}}})
		expect(t, "refused once", len(l.refused), 1)
		r.end()
	})
}

func TestExcludedIsReadAfreshForEachAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink, cfg := refusing(Drop)
		sink.write = failing(1, errDown)
		l.batch("t", 1, 2)
		r := run(t, testConfig(cfg), l)
		pass(time.Second)
		expect(t, "first attempt", sink.tried()[0].Offsets, []int64{1, 2})
		expect(t, "second attempt", sink.tried()[1].Offsets, []int64{2})
		expect(t, "refused once", l.refused, []string{"a 1 true [1]"})
		r.end()
	})
}

// sinkFunc is a sink for what the well-behaved fake does not do.
type sinkFunc func(ctx context.Context, b record.Batch, settle func(context.Context, []record.Refusal) error) error

func (f sinkFunc) Deliver(ctx context.Context, b record.Batch, settle func(context.Context, []record.Refusal) error) error {
	return f(ctx, b, settle)
}

func custom(f sinkFunc, policy Policy) SinkConfig {
	return SinkConfig{Name: "a", Guarantee: ExactlyOnce, Refused: policy, Sink: f}
}

func refusal(offset int64) record.Refusal {
	return record.Refusal{RecordID: record.RecordID{Topic: "t", Offset: offset}, Reason: "odd"}
}

func TestBatchReadsTheSameAfterSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog("a")
		l.batch("t", 1, 2)
		var readings []string
		read := func(ctx context.Context, b record.Batch) error {
			var offsets []int64
			defer func() { readings = append(readings, fmt.Sprint(offsets)) }()
			return b.Read(ctx, func(rec *record.Record) error {
				offsets = append(offsets, rec.Offset)
				return nil
			})
		}
		cfg := custom(func(ctx context.Context, b record.Batch, settle func(context.Context, []record.Refusal) error) error {
			return errors.Join(read(ctx, b), settle(ctx, []record.Refusal{refusal(1), refusal(1)}), read(ctx, b),
				settle(ctx, []record.Refusal{refusal(1)}))
		}, Drop)
		r := run(t, testConfig(cfg), l)
		expect(t, "readings", readings, []string{"[1 2]", "[1 2]"})
		expect(t, "reported once", l.refused, []string{"a 1 true [1]"})
		r.end()
	})
}

func TestFullParkingBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink, cfg := refusing(Park)
		var room atomic.Bool
		l.onRefuse = func(context.Context) error {
			if !room.Load() {
				return errors.New("parked.maxBytes is reached")
			}
			return nil
		}
		l.batch("t", 1, 2)
		r := run(t, testConfig(cfg), l)
		s := r.state("a")
		expect(t, "state", s.State, StateBlocked)
		expect(t, "error", s.LastError, "record t/0@1 of batch 7-00000000000000000001 was refused: odd; "+
			"it could not be left out: parked.maxBytes is reached")
		room.Store(true)
		pass(time.Minute)
		expect(t, "goes on by itself", sink.took(), []try{{Seq: 1, Offsets: []int64{2}, At: time.Minute}})
		r.end()
	})
}

// However slow the log is to record a refusal, no attempt begins before it has.
func TestRefuseOutlastsTheAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink, cfg := refusing(Park)
		l.onRefuse = func(context.Context) error { time.Sleep(time.Hour); return nil }
		sink.write = func(ctx context.Context, _ int) error { return ctx.Err() }
		l.batch("t", 1, 2)
		r := run(t, testConfig(cfg), l)
		pass(59 * time.Minute)
		expect(t, "tries", len(sink.tried()), 1)
		sink.accepting()
		pass(2 * time.Minute)
		expect(t, "durable", sink.took(), []try{{Seq: 1, Offsets: []int64{2}, At: time.Hour + time.Second}})
		r.end()
	})
}

func TestTermEndsWhileARefusalIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink, cfg := refusing(Park)
		l.onRefuse = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		l.batch("t", 1, 2)
		r := run(t, testConfig(cfg), l)
		r.end()
		expect(t, "durable", len(sink.took()), 0)
		expect(t, "state", r.state("a").State, StateDelivering)
	})
}

func TestSettleAfterTheTimeoutIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		cfg := sink.config("a")
		cfg.Guarantee = AtMostOnce
		settled := []error{}
		cfg.Sink = sinkFunc(func(ctx context.Context, b record.Batch, settle func(context.Context, []record.Refusal) error) error {
			if len(settled) == 0 {
				<-ctx.Done()
			}
			err := settle(ctx, nil)
			settled = append(settled, err)
			return err
		})
		l.batch("t", 1)
		r := run(t, testConfig(cfg), l)
		pass(time.Minute)
		expect(t, "settles", fmt.Sprint(settled), "[context deadline exceeded <nil>]")
		expect(t, "cursor", l.cursor("a"), 2)
		r.end()
	})
}

func TestSinkThatIgnoresSettleFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog("a")
		l.batch("t", 1)
		cfg := custom(func(ctx context.Context, _ record.Batch, settle func(context.Context, []record.Refusal) error) error {
			_ = settle(ctx, []record.Refusal{refusal(1)})
			return nil
		}, Block)
		r := run(t, testConfig(cfg), l)
		expect(t, "state", r.state("a").State, StateFailed)
		expect(t, "dones", l.doneCount(), 0)
		r.end()
	})
}

func TestExcludedIsNotRecordedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, n := newFakeLog("a"), 0
		l.batch("t", 1, 2)
		cfg := custom(func(ctx context.Context, _ record.Batch, settle func(context.Context, []record.Refusal) error) error {
			err := settle(ctx, []record.Refusal{refusal(1)}) // the second time it was not given the record
			if n++; err == nil && n == 1 {
				err = errDown
			}
			return err
		}, Park)
		r := run(t, testConfig(cfg), l)
		pass(time.Minute)
		expect(t, "refused", l.refused, []string{"a 1 false [1]"})
		expect(t, "cursor", l.cursor("a"), 2)
		r.end()
	})
}

func TestPermanentErrorAfterABlockFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog("a")
		l.batch("t", 1)
		cfg := custom(func(ctx context.Context, _ record.Batch, settle func(context.Context, []record.Refusal) error) error {
			_ = settle(ctx, []record.Refusal{refusal(1)})
			return permanentErr{errors.New("could not roll back")}
		}, Block)
		r := run(t, testConfig(cfg), l)
		expect(t, "state", r.state("a").State, StateFailed)
		r.end()
	})
}

func TestSinkThatHidesTheBlockIsBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog("a")
		l.batch("t", 1)
		cfg := custom(func(ctx context.Context, _ record.Batch, settle func(context.Context, []record.Refusal) error) error {
			if settle(ctx, []record.Refusal{refusal(1)}) != nil {
				return errors.New("rolled back")
			}
			return nil
		}, Block)
		r := run(t, testConfig(cfg), l)
		expect(t, "state", r.state("a").State, StateBlocked)
		r.end()
	})
}

func TestReasonsAreBounded(t *testing.T) {
	for _, reason := range []string{"short", strings.Repeat("x", maxReason), strings.Repeat("ü", maxReason), "bad \xff utf-8"} {
		got := shorten(reason)
		if len(got) > maxReason || !utf8.ValidString(got) {
			t.Errorf("%d bytes, valid %v", len(got), utf8.ValidString(got))
		}
		if len(reason) <= maxReason && utf8.ValidString(reason) {
			expect(t, "unchanged", got, reason)
		}
	}
}

// HARD-CASES 9.
func TestAtMostOnceCommitsBeforeTheWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink, cfg := refusing(Park)
		cfg.Guarantee = AtMostOnce
		var atWrite []string
		sink.write = func(context.Context, int) error {
			atWrite = append(atWrite, fmt.Sprint("cursor ", l.cursor("a"), ", refusals ", len(l.refused)))
			return nil
		}
		l.batch("t", 1, 2)
		r := run(t, testConfig(cfg), l)
		expect(t, "when it writes", atWrite, []string{"cursor 2, refusals 1"})
		expect(t, "durable", sink.took(), []try{{Seq: 1, Offsets: []int64{2}}})
		expect(t, "dones", l.doneCount(), 1)
		r.end()
	})
}

func TestAtMostOnceLosesAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		cfg := sink.config("a")
		cfg.Guarantee = AtMostOnce
		sink.write = failing(1, errDown)
		l.batch("t", 1)
		l.batch("t", 2)
		var out transcript
		whole := testConfig(cfg)
		whole.Logger = textLogger(&out)
		r := run(t, whole, l)
		expect(t, "state", r.state("a").State, StateRetrying)
		pass(time.Minute)
		expect(t, "tries", seqs(sink.tried()), []uint64{1, 2})
		expect(t, "with a backoff between", times(sink.tried()), seconds(0, 1))
		expect(t, "durable", seqs(sink.took()), []uint64{2})
		expect(t, "history", r.Deliveries(1)[0].State, StateLost)
		expect(t, "said", strings.Count(out.String(), "batch lost"), 1)
		r.end()
	})
}

func TestAtMostOnceLosesNothingBeforeItSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		cfg := sink.config("a")
		cfg.Guarantee = AtMostOnce
		sink.before = failing(2, errDown)
		l.batch("t", 1)
		r := run(t, testConfig(cfg), l)
		pass(time.Minute)
		expect(t, "durable", seqs(sink.took()), []uint64{1})
		r.end()
	})
}

// The done of an at-most-once batch outlasts the attempt: else a done that was
// taken after all would lose the batch in silence.
func TestAtMostOnceKnowsWhetherItsDoneWasTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink, first := newFakeLog("a"), newFakeSink(), true
		l.onDone = func() error {
			if !first {
				return nil
			}
			first = false
			time.Sleep(time.Minute)
			return errors.Join(l.takeDone(record.Done{Sink: "a", Seq: 1}), errors.New("no answer"))
		}
		cfg := sink.config("a")
		cfg.Guarantee = AtMostOnce
		l.batch("t", 1)
		r := run(t, testConfig(cfg), l)
		pass(time.Hour)
		expect(t, "durable", seqs(sink.took()), []uint64{1})
		r.end()
	})
}

func TestAtMostOnceBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink, cfg := refusing(Block)
		cfg.Guarantee = AtMostOnce
		l.batch("t", 1)
		r := run(t, testConfig(cfg), l)
		expect(t, "state", r.state("a").State, StateBlocked)
		expect(t, "cursor", l.cursor("a"), 1)
		sink.accepting()
		pass(time.Minute)
		expect(t, "durable", seqs(sink.took()), []uint64{1})
		r.end()
	})
}

// A sink that finds the batch at its destination returns nil without settling.
func TestSinkThatHasTheBatchNeedNotSettle(t *testing.T) {
	for _, guarantee := range []Guarantee{AtMostOnce, AtLeastOnce, ExactlyOnce} {
		synctest.Test(t, func(t *testing.T) {
			l := newFakeLog("a")
			l.batch("t", 1)
			cfg := custom(func(context.Context, record.Batch, func(context.Context, []record.Refusal) error) error { return nil }, Block)
			cfg.Guarantee = guarantee
			r := run(t, testConfig(cfg), l)
			expect(t, "cursor", l.cursor("a"), 2)
			r.end()
		})
	}
}

func TestBlockedErrorText(t *testing.T) {
	err := &BlockedError{Batch: record.BatchID{Seq: 1}, First: refusal(4), Count: 1, Cause: errDown}
	if diff := cmp.Diff("record t/0@4 of batch 0-00000000000000000001 was refused: odd; it could not be left out: connection refused", err.Error()); diff != "" {
		t.Error(diff)
	}
	if !errors.Is(err, errDown) {
		t.Error("does not unwrap to its cause")
	}
}
