package sinktest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/record"
	"forebay/sinks"
)

// Run runs the whole suite. fresh is called for each case, and gives a harness
// over an empty destination of its own.
func Run(t *testing.T, fresh func(t testing.TB) *Harness) {
	t.Helper()
	for _, c := range slices.Concat(deliveryCases(), faultCases(), claimCases(), recordCases()) {
		t.Run(c.name, func(t *testing.T) {
			c.run(t, &suite{Harness: fresh(t), fresh: fresh})
		})
	}
}

type testCase struct {
	name string
	run  func(t *testing.T, s *suite)
}

// suite is a harness with the helpers of the cases.
type suite struct {
	*Harness
	fresh func(t testing.TB) *Harness
}

// again gives the suite over another empty destination, for a case of many parts.
func (s *suite) again(t testing.TB) *suite {
	return &suite{Harness: s.fresh(t), fresh: s.fresh}
}

// open makes and opens a sink as the leader of a term would.
func (s *suite) open(t testing.TB, variant int, id sinks.Identity) sinks.Sink {
	t.Helper()
	sink := s.Make(t, variant)
	if err := sink.Open(t.Context(), id); err != nil {
		t.Fatalf("opening the sink: %v", err)
	}
	return sink
}

// closed closes a sink at the end of a case.
func closed(t testing.TB, sink sinks.Sink) {
	t.Helper()
	if err := sink.Close(); err != nil {
		t.Errorf("closing the sink: %v", err)
	}
}

// deliver expects a batch of good records to be delivered, and settled once,
// with nothing refused.
func (s *suite) deliver(t testing.TB, sink sinks.Sink, b record.Batch) {
	t.Helper()
	if st := s.redeliver(t, sink, b); st.calls != 1 {
		t.Fatalf("delivering %v: settle was called %d times, want once", b.ID, st.calls)
	}
}

// redeliver does the same for a batch that may be there already, and then need
// not be settled.
func (s *suite) redeliver(t testing.TB, sink sinks.Sink, b record.Batch) *settler {
	t.Helper()
	st := &settler{}
	if err := sink.Deliver(t.Context(), b, st.settle); err != nil {
		t.Fatalf("delivering %v: %v", b.ID, err)
	}
	if len(st.refused) != 0 {
		t.Fatalf("delivering %v: refused %v, want nothing refused", b.ID, st.refused)
	}
	if st.calls > 1 {
		t.Fatalf("delivering %v: settle was called %d times, want at most once", b.ID, st.calls)
	}
	return st
}

// refuses expects a call to fail with a permanent error that is want.
func refuses(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || !sinks.IsPermanent(err) {
		t.Errorf("%s: got %v, want a permanent %q", what, err, want)
	}
}

// patience bounds a call that should return at once: it is long because it is
// only waited for when the sink is broken.
const patience = 20 * time.Second

// within runs a call that must return soon.
func within(t testing.TB, what string, call func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- call() }()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		t.Fatalf("%s did not return within %v of its context's end", what, patience)
		return nil
	}
}

// sees expects the consumer to see exactly these records, in this order; of an
// at-least-once sink, all of them at least once.
func (s *suite) sees(t testing.TB, want ...[]record.Record) {
	t.Helper()
	var got []string
	for _, seen := range s.Read(t) {
		for i := range seen.Records {
			got = append(got, shown(s.kept(&seen.Records[i])))
		}
	}
	var exp []string
	for _, recs := range want {
		for i := range recs {
			exp = append(exp, shown(s.kept(&recs[i])))
		}
	}
	if s.guarantee(t) == sinks.ExactlyOnce {
		if diff := cmp.Diff(exp, got); diff != "" {
			t.Fatalf("the consumer sees something else (-want +got):\n%s", diff)
		}
		return
	}
	for _, e := range exp {
		if !slices.Contains(got, e) {
			t.Fatalf("the consumer does not see %s", e)
		}
	}
	for _, g := range got {
		if !slices.Contains(exp, g) {
			t.Fatalf("the consumer sees %s, which nobody sent", g)
		}
	}
}

// kept cuts a copy of a record down to what the destination keeps.
func (s *suite) kept(r *record.Record) *record.Record {
	c := clone(r)
	if s.Keeps != nil {
		s.Keeps(&c)
	}
	return &c
}

func (s *suite) guarantee(t testing.TB) sinks.Guarantee {
	t.Helper()
	return s.Make(t, 0).Guarantee()
}

// exactlyOnce skips what only an exactly-once sink can promise.
func (s *suite) exactlyOnce(t testing.TB) {
	t.Helper()
	if s.guarantee(t) != sinks.ExactlyOnce {
		t.Skip("the sink is not exactly-once")
	}
}

// clean expects nothing unfinished to lie in the destination.
func (s *suite) clean(t testing.TB) {
	t.Helper()
	if s.Leftovers == nil {
		return
	}
	if left := s.Leftovers(t); len(left) != 0 {
		t.Fatalf("left behind in the destination: %q", left)
	}
}

// strike arms a fault and runs a delivery into it. It tells how the delivery
// ended, and fails when the fault was never met.
func (s *suite) strike(t testing.TB, sink sinks.Sink, point string, kind Kind, b record.Batch, st *settler) error {
	t.Helper()
	f := &Fault{Point: point, Kind: kind, Reached: make(chan struct{}), Release: make(chan struct{})}
	s.Inject(f)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if kind == Hang {
		stop := make(chan struct{})
		waiter := make(chan struct{})
		go func() {
			defer close(waiter)
			select {
			case <-f.Reached:
				cancel()
			case <-stop:
			}
		}()
		defer func() { close(stop); <-waiter; close(f.Release) }()
	}
	err := within(t, "Deliver", func() error { return sink.Deliver(ctx, b, st.settle) })
	select {
	case <-f.Reached:
	default:
		t.Fatalf("the fault at %q was never met (Deliver returned %v)", point, err)
	}
	return err
}
