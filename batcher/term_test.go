package batcher

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"forebay/internal/record"
)

func TestLeadLostInTheMiddleOfADelivery(t *testing.T) {
	for name, last := range map[string]func(ctx context.Context) error{
		"sink gives up with its context": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"sink finishes all the same":     func(ctx context.Context) error { <-ctx.Done(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, sink := newFakeLog("a"), newFakeSink()
				called := 0
				l.onDone = func() error { called++; return nil }
				sink.write = func(ctx context.Context, _ int) error { return last(ctx) }
				l.batch("t", 1)
				r := run(t, testConfig(sink.config("a")), l)
				l.accept("t", 2)
				r.end()
				expect(t, "dones proposed", called, 0)
				expect(t, "batches", len(l.batches), 1)
				expect(t, "closes", sink.closes, 1)
				expect(t, "failures said", r.state("a").Retries, 0)
			})
		})
	}
}

func TestLeadLostAtADoneEndsTheTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink, other := newFakeLog("a", "b"), newFakeSink(), newFakeSink()
		other.write = failing(1e9, errDown)
		l.onDone = func() error { return fmt.Errorf("done: %w", record.ErrLeadLost) }
		l.batch("t", 1)
		r := run(t, testConfig(sink.config("a"), other.config("b")), l)
		if err := <-r.result; !errors.Is(err, record.ErrLeadLost) {
			t.Errorf("Run returned %v", err)
		}
		expect(t, "closes", sink.closes+other.closes, 2)
		r.cancel(nil)
	})
}

func TestLeadLostHiddenByTheSinkEndsTheTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLog("a")
		l.onRefuse = func(context.Context) error { return record.ErrLeadLost }
		l.batch("t", 1)
		cfg := custom(func(ctx context.Context, _ record.Batch, settle func(context.Context, []record.Refusal) error) error {
			return fmt.Errorf("rolled back: %v", settle(ctx, []record.Refusal{refusal(1)})) //nolint:errorlint // hiding it is the point
		}, Drop)
		r := run(t, testConfig(cfg), l)
		if err := <-r.result; !errors.Is(err, record.ErrLeadLost) {
			t.Errorf("Run returned %v", err)
		}
		r.cancel(nil)
	})
}

func TestSettleAfterTheTermIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		sink.before = func(ctx context.Context, _ int) error { <-ctx.Done(); return nil }
		var settled error
		l.batch("t", 1)
		cfg := custom(func(ctx context.Context, _ record.Batch, settle func(context.Context, []record.Refusal) error) error {
			<-ctx.Done()
			settled = settle(context.WithoutCancel(ctx), nil)
			return settled
		}, Block)
		run(t, testConfig(cfg), l).end()
		if !errors.Is(settled, errTermOver) {
			t.Errorf("settle returned %v", settled)
		}
	})
}

func TestDoneIsTriedAgainWithoutDeliveringAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		n := 0
		l.onDone = func() error {
			if n++; n <= 3 {
				return errors.New("enqueue timeout")
			}
			return nil
		}
		l.batch("t", 1)
		r := run(t, testConfig(sink.config("a")), l)
		pass(time.Minute)
		expect(t, "tries", len(sink.tried()), 1)
		expect(t, "cursor", l.cursor("a"), 2)
		r.end()
	})
}

func TestDoneThatWasTakenAfterAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		first := true
		l.onDone = func() error {
			if first {
				first = false
				if err := l.takeDone(record.Done{Sink: "a", Seq: 1}); err != nil {
					t.Error(err)
				}
				return errors.New("timed out, but committed")
			}
			return nil
		}
		l.batch("t", 1)
		r := run(t, testConfig(sink.config("a")), l)
		pass(time.Minute)
		expect(t, "tries", len(sink.tried()), 1)
		expect(t, "advanced", sink.advanced, []string{"2 1"})
		expect(t, "state", r.state("a").State, StateIdle)
		r.end()
	})
}

func TestSinkRemovedBeforeItsDone(t *testing.T) {
	for _, guarantee := range []Guarantee{AtMostOnce, AtLeastOnce} {
		t.Run(string(guarantee), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, sink := newFakeLog("a"), newFakeSink()
				l.onDone = func() error { l.remove("a"); return nil }
				cfg := sink.config("a")
				cfg.Guarantee = guarantee
				l.batch("t", 1)
				r := run(t, testConfig(cfg), l)
				pass(time.Hour)
				expect(t, "state", r.state("a").State, StateRemoved)
				expect(t, "tries", len(sink.tried()), 1)
				expect(t, "durable", len(sink.took()), map[Guarantee]int{AtMostOnce: 0, AtLeastOnce: 1}[guarantee])
				r.end()
			})
		})
	}
}

func TestTermEndsWhileADoneIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		l.onDone = func() error { return errDown }
		l.batch("t", 1)
		r := run(t, testConfig(sink.config("a")), l)
		pass(time.Minute)
		r.end()
		expect(t, "tries", len(sink.tried()), 1)
		expect(t, "retries", r.state("a").Retries, 0)
	})
}

func TestCloseThatFailsIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		cfg := sink.config("a")
		cfg.Close = func() error { return errDown }
		var out transcript
		whole := testConfig(cfg)
		whole.Logger = textLogger(&out)
		run(t, whole, l).end()
		expect(t, "said", strings.Count(out.String(), "closing the sink failed"), 1)
	})
}

func TestForeignMetricIsAnError(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "forebay_sink_cursor", Help: "another"}))
	cfg := testConfig()
	cfg.Registerer = reg
	if _, err := New(cfg, newFakeLog()); err == nil {
		t.Error("accepted")
	}
}

func TestSizeCountsKeyValueAndHeaders(t *testing.T) {
	rec := record.Record{Key: []byte("ab"), Value: []byte("cde"), Headers: []record.Header{{Key: []byte("f")}, {Key: []byte("g"), Value: []byte("hi")}}}
	expect(t, "size", sizeOf(&rec), 9)
}

func TestAdvancedFailsAtNoCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		sink.advance = func(_, _ record.BatchID) error { return errDown }
		l.batch("t", 1)
		l.batch("t", 2)
		var out transcript
		cfg := testConfig(sink.config("a"))
		cfg.Logger = textLogger(&out)
		r := run(t, cfg, l)
		expect(t, "durable", times(sink.took()), seconds(0, 0))
		expect(t, "said once", strings.Count(out.String(), "telling the sink its cursor failed"), 1)
		r.end()
	})
}

// FAULTS 36.
func TestDrainFinishesWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink, dead := newFakeLog("a", "dead"), newFakeSink(), newFakeSink()
		sink.before = func(context.Context, int) error { time.Sleep(10 * time.Second); return nil }
		dead.write = failing(1e9, errDown)
		l.batch("t", 1)
		l.batch("t", 2)
		r := run(t, testConfig(sink.config("a"), dead.config("dead")), l)
		l.accept("t", 3)
		start := time.Now()
		pass(time.Second)
		if err := r.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		expect(t, "took", time.Since(start), 10*time.Second)
		if err := <-r.result; err != nil {
			t.Errorf("Run returned %v", err)
		}
		expect(t, "durable", seqs(sink.took()), []uint64{1})
		expect(t, "done of it", l.cursor("a"), 2)
		expect(t, "no last cut", len(l.batches), 2)
		expect(t, "closes", sink.closes+dead.closes, 2)
		r.cancel(nil)
	})
}

func TestDrainEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		sink.before = func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() }
		l.batch("t", 1)
		r := run(t, testConfig(sink.config("a")), l)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		err := r.Drain(ctx)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Drain returned %v", err)
		}
		expect(t, "error", err.Error(), "waiting for the deliveries under way (a): context deadline exceeded")
		r.end()
		expect(t, "dones", l.doneCount(), 0)
	})
}

func TestDrainBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		l.batch("t", 1)
		b, err := New(testConfig(sink.config("a")), l)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(b.Drain(t.Context()), b.Run(t.Context())); err != nil {
			t.Error(err)
		}
		expect(t, "tries", len(sink.tried()), 0)
		if err := b.Run(t.Context()); err == nil {
			t.Error("ran twice")
		}
	})
}

func TestConfigSaysAllThatIsWrong(t *testing.T) {
	sink := newFakeSink()
	good := sink.config("good")
	bad := SinkConfig{Guarantee: "often", Refused: "eat", Timeout: -1, Backoff: Backoff{Initial: 2, Max: 1, Multiplier: 0.5}}
	_, err := New(Config{Interval: -1, MaxBytes: -1, Sinks: []SinkConfig{good, good, bad}}, newFakeLog())
	want := `batcher: interval -1ns: want more than 0
max bytes, max records and history: want 0 or more
sink "good": configured twice
sink "": has no name
sink "": has nothing to deliver to
sink "": delivery "often": want "at-most-once", "at-least-once" or "exactly-once"
sink "": refused "eat": want "block", "park" or "drop"
sink "": timeout and blocked retry: want more than 0
sink "": backoff: want 0 < initial <= max
sink "": backoff: want multiplier >= 1 and jitter <= 1`
	if err == nil {
		t.Fatal("accepted")
	}
	expect(t, "error", err.Error(), want)
}

var update = flag.Bool("update", false, "write the golden files anew")

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink, dead := newFakeLog("a", "dead"), newFakeSink(), newFakeSink()
		sink.refuse = odd
		dead.write = failing(1e9, errDown)
		reg := prometheus.NewPedanticRegistry()
		cfg := sink.config("a")
		cfg.Refused = Park
		whole := testConfig(cfg, dead.config("dead"))
		whole.Registerer = reg
		r := run(t, whole, l)
		l.accept("t", 1, 2, 3)
		pass(6 * time.Second)
		got := dump(t, reg)
		const golden = "testdata/metrics.txt"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "metrics", got, string(want))
		r.end()
		after := dump(t, reg)
		for _, gone := range []string{"forebay_sink_state", "forebay_sink_cursor", "forebay_sink_lag_batches"} {
			expect(t, gone+" after the term", strings.Contains(after, gone), false)
		}
		// The next term shares the registry.
		if _, err := New(whole, l); err != nil {
			t.Error(err)
		}
	})
}

func TestLagOfAHangingSinkIsSeenToGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sink := newFakeLog("a"), newFakeSink()
		sink.before = func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() }
		cfg := testConfig(sink.config("a"))
		reg := prometheus.NewPedanticRegistry()
		cfg.Registerer = reg
		r := run(t, cfg, l)
		for i := range 3 {
			l.accept("t", int64(i))
			pass(5 * time.Second)
		}
		expect(t, "tries", len(sink.tried()), 1)
		const want = `forebay_sink_lag_batches{lane="7",sink="a"} 3`
		if got := dump(t, reg); !strings.Contains(got, want) {
			t.Errorf("want %s in:\n%s", want, got)
		}
		r.end()
	})
}

// dump writes metrics without buckets, one a line.
func dump(t *testing.T, reg *prometheus.Registry) string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, p := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", p.GetName(), p.GetValue()))
			}
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue()
			if h := m.GetHistogram(); h != nil {
				fmt.Fprintf(&out, "%s{%s} count %d sum %g\n", f.GetName(), strings.Join(labels, ","), h.GetSampleCount(), h.GetSampleSum())
				continue
			}
			fmt.Fprintf(&out, "%s{%s} %v\n", f.GetName(), strings.Join(labels, ","), value)
		}
	}
	return out.String()
}

// dice gives random faults that depend on a seed alone, one at a time.
type dice struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func (d *dice) roll(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.IntN(n)
}

// TestRandomFaults runs terms of random length against sinks with random faults,
// and compares what arrived with what was cut.
func TestRandomFaults(t *testing.T) {
	for seed := range uint64(150) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { randomFaults(t, seed) })
		})
	}
}

func randomFaults(t *testing.T, seed uint64) {
	luck := &dice{rng: rand.New(rand.NewPCG(seed, 0))}
	var healed atomic.Bool
	l := newFakeLog("a", "b")
	l.onDone = func() error {
		if !healed.Load() && luck.roll(10) == 0 {
			return errDown
		}
		return nil
	}
	sinks := map[string]*fakeSink{"a": newFakeSink(), "b": newFakeSink()}
	for name, s := range sinks {
		own := &dice{rng: rand.New(rand.NewPCG(seed, uint64(name[0])))}
		s.refuse = func(rec *record.Record) string {
			if name == "b" && rec.Offset%7 == 0 {
				return "seven"
			}
			return ""
		}
		fault := func(ctx context.Context, _ int) error {
			if healed.Load() {
				return nil
			}
			switch own.roll(10) {
			case 0:
				return errDown
			case 1:
				<-ctx.Done()
				return ctx.Err()
			case 2:
				time.Sleep(3 * time.Second)
			}
			return nil
		}
		s.before, s.write = fault, fault
	}
	term := func() *bench {
		a, b := sinks["a"].config("a"), sinks["b"].config("b")
		b.Refused = Park
		return run(t, testConfig(a, b), l)
	}
	offset := int64(0)
	for range 1 + luck.roll(3) {
		r := term()
		for range 1 + luck.roll(8) {
			offset++
			l.accept("t", offset)
			pass(time.Duration(1+luck.roll(20_000)) * time.Millisecond)
		}
		r.end()
	}
	healed.Store(true)
	r := term()
	pass(time.Hour)
	r.end()
	checkOracle(t, l, sinks, offset)
}

func checkOracle(t *testing.T, l *fakeLog, sinks map[string]*fakeSink, last int64) {
	t.Helper()
	for name, s := range sinks {
		var got []int64
		next := uint64(1)
		for _, d := range s.took() {
			switch {
			case d.Seq == next:
				got, next = append(got, d.Offsets...), next+1
			case d.Seq != next-1:
				t.Errorf("sink %s: batch %d after %d", name, d.Seq, next-1)
			}
		}
		var want []int64
		for o := int64(1); o <= last; o++ {
			if name == "a" || o%7 != 0 {
				want = append(want, o)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("sink %s has %v, want %v", name, got, want)
		}
		if s.brokenContract != "" {
			t.Errorf("sink %s was %s", name, s.brokenContract)
		}
	}
	refused := 0
	for _, line := range l.refused {
		refused += len(strings.Fields(line)) - 3
	}
	expect(t, "refusals recorded", refused, int(last/7))
}
