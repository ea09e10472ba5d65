package sinktest

import (
	"context"
	"errors"
	"testing"

	"forebay/internal/record"
	"forebay/sinks"
)

func deliveryCases() []testCase {
	return []testCase{
		{"Plain", plain},
		{"AgainAfterSuccess", againAfterSuccess},
		{"SettledBeforeVisible", settledBeforeVisible},
		{"SettleFails", settleFails},
		{"EmptyBatch", emptyBatch},
		{"ReadFails", readFails},
		{"ContextEnds", contextEnds},
		{"Lifecycle", lifecycle},
	}
}

func plain(t *testing.T, s *suite) {
	sink := s.open(t, 0, Identity(1, 1))
	defer closed(t, sink)
	var want [][]record.Record
	for seq := uint64(1); seq <= 4; seq++ {
		recs := Records(int64(seq)*100, 25)
		want = append(want, recs)
		s.deliver(t, sink, NewBatch(1, seq, recs))
		advance(t, sink, seq+1)
	}
	s.sees(t, want...)
	s.clean(t)
	for _, seen := range s.Read(t) {
		if seen.ID.Seq != 0 && len(seen.Records) > 0 && seen.Records[0].Offset != int64(seen.ID.Seq)*100 {
			t.Errorf("batch %v begins with offset %d", seen.ID, seen.Records[0].Offset)
		}
	}
	for v := range s.Variants {
		if got := s.Make(t, v).Destination(); got == "" || got != sink.Destination() {
			t.Errorf("variant %d has destination %q, want that of variant 0, %q", v, got, sink.Destination())
		}
	}
}

// advance says that the batches below seq are done, as the batcher does.
func advance(t testing.TB, sink sinks.Sink, seq uint64) {
	t.Helper()
	if a, ok := sink.(sinks.Advancer); ok {
		next := record.BatchID{Seq: seq}
		if err := a.Advanced(t.Context(), next, record.BatchID{Seq: 1}); err != nil {
			t.Fatalf("advancing to %v: %v", next, err)
		}
	}
}

func againAfterSuccess(t *testing.T, s *suite) {
	one, two := Records(100, 5), Records(200, 5)
	sink := s.open(t, 0, Identity(1, 1))
	s.deliver(t, sink, NewBatch(1, 1, one))
	for range 2 {
		s.redeliver(t, sink, NewBatch(1, 1, one))
	}
	closed(t, sink)
	sink = s.open(t, 0, Identity(2, 1))
	s.redeliver(t, sink, NewBatch(2, 1, one))
	s.deliver(t, sink, NewBatch(2, 2, two))
	s.redeliver(t, sink, NewBatch(2, 2, two))
	closed(t, sink)
	s.sees(t, one, two)
}

func settledBeforeVisible(t *testing.T, s *suite) {
	sink := s.open(t, 0, Identity(1, 1))
	defer closed(t, sink)
	st := &settler{before: func() { s.sees(t) }}
	recs := Records(100, 5)
	if err := sink.Deliver(t.Context(), NewBatch(1, 1, recs), st.settle); err != nil || st.calls != 1 {
		t.Fatalf("Deliver returned %v after %d calls of settle, want nil after one", err, st.calls)
	}
	s.sees(t, recs)
}

func settleFails(t *testing.T, s *suite) {
	sink := s.open(t, 0, Identity(1, 1))
	defer closed(t, sink)
	blocked := errors.New("blocked by the operator's policy")
	recs := Records(100, 5)
	for range 2 {
		st := &settler{fail: blocked}
		if err := sink.Deliver(t.Context(), NewBatch(1, 1, recs), st.settle); !errors.Is(err, blocked) || sinks.IsPermanent(err) {
			t.Fatalf("Deliver returned %v, want settle's own error", err)
		}
		s.sees(t)
		s.clean(t)
	}
	s.deliver(t, sink, NewBatch(1, 1, recs))
	s.sees(t, recs)
}

func emptyBatch(t *testing.T, s *suite) {
	sink := s.open(t, 0, Identity(1, 1))
	defer closed(t, sink)
	for range 2 {
		s.redeliver(t, sink, NewBatch(1, 1, nil))
	}
	s.sees(t)
	s.clean(t)
	recs := Records(200, 5)
	s.deliver(t, sink, NewBatch(1, 2, recs))
	s.redeliver(t, sink, NewBatch(1, 3, nil))
	s.sees(t, recs)
	for _, seen := range s.Read(t) {
		if seen.ID.Seq != 0 && len(seen.Records) == 0 {
			t.Errorf("the consumer sees batch %v, which has no records", seen.ID)
		}
	}
}

func readFails(t *testing.T, s *suite) {
	sink := s.open(t, 0, Identity(1, 1))
	defer closed(t, sink)
	recs := Records(100, 5)
	b := NewBatch(1, 1, recs)
	whole := b.Read
	b.Read = func(ctx context.Context, fn func(*record.Record) error) error {
		n := 0
		return whole(ctx, func(r *record.Record) error {
			if n++; n == 4 {
				return record.ErrLeadLost
			}
			return fn(r)
		})
	}
	if err := sink.Deliver(t.Context(), b, (&settler{}).settle); !errors.Is(err, record.ErrLeadLost) {
		t.Fatalf("Deliver returned %v, want the reading's own error", err)
	}
	s.sees(t)
	s.clean(t)
	s.deliver(t, sink, NewBatch(1, 1, recs))
	s.sees(t, recs)
}

func contextEnds(t *testing.T, s *suite) {
	sink := s.open(t, 0, Identity(1, 1))
	defer closed(t, sink)
	recs := Records(100, 50)

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	st := &settler{}
	if err := within(t, "Deliver", func() error { return sink.Deliver(ended, NewBatch(1, 1, recs), st.settle) }); err == nil {
		t.Fatal("Deliver returned nil although its context had ended")
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b := NewBatch(1, 1, recs)
	whole := b.Read
	b.Read = func(ctx context.Context, fn func(*record.Record) error) error {
		n := 0
		return whole(ctx, func(r *record.Record) error {
			if n++; n == 20 {
				cancel()
			}
			return fn(r)
		})
	}
	if err := within(t, "Deliver", func() error { return sink.Deliver(ctx, b, st.settle) }); !errors.Is(err, context.Canceled) {
		t.Fatalf("Deliver returned %v, want that of its context", err)
	}
	s.sees(t)
	s.clean(t)
	s.deliver(t, sink, NewBatch(1, 1, recs))
	s.sees(t, recs)
}

func lifecycle(t *testing.T, s *suite) {
	sink := s.Make(t, 0)
	if err := sink.Close(); err != nil {
		t.Errorf("Close before Open: %v", err)
	}
	if err := sink.Deliver(t.Context(), NewBatch(1, 1, Records(0, 1)), (&settler{}).settle); err == nil {
		t.Error("Deliver before Open returned nil")
	}
	one, two := Records(100, 5), Records(200, 5)
	if err := sink.Open(t.Context(), Identity(1, 1)); err != nil {
		t.Fatalf("opening: %v", err)
	}
	s.deliver(t, sink, NewBatch(1, 1, one))
	closed(t, sink)
	closed(t, sink)
	if err := sink.Deliver(t.Context(), NewBatch(1, 2, two), (&settler{}).settle); err == nil {
		t.Error("Deliver after Close returned nil")
	}
	if err := sink.Open(t.Context(), Identity(1, 2)); err != nil {
		t.Fatalf("opening again: %v", err)
	}
	s.deliver(t, sink, NewBatch(1, 2, two))
	closed(t, sink)
	s.sees(t, one, two)
}
