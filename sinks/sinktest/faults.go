package sinktest

import (
	"slices"
	"testing"

	"forebay/internal/record"
	"forebay/sinks"
)

func faultCases() []testCase {
	return []testCase{
		{"AgainAfterAFault", againAfterAFault},
		{"ChangedBetweenAttempts", changedBetweenAttempts},
		{"Refusals", refusals},
		{"AllRefused", allRefused},
		{"RefusalsAndAFault", refusalsAndAFault},
		{"TooManyRefusals", tooManyRefusals},
	}
}

// eachFault runs a part for each kind of fault at each point, over a destination
// of its own.
func (s *suite) eachFault(t *testing.T, part func(t *testing.T, s *suite, p Point, kind Kind)) {
	t.Helper()
	if len(s.Points) == 0 {
		t.Fatal("the harness names no points at which faults can be injected")
	}
	for _, p := range s.Points {
		for _, kind := range []Kind{Fail, Hang, Crash} {
			t.Run(p.Name+"/"+kind.String(), func(t *testing.T) { part(t, s.again(t), p, kind) })
		}
	}
}

// afterwards gives the sink that delivers the batch again: the same one after an
// error or a timeout, that of the next term after a crash.
func (s *suite) afterwards(t *testing.T, sink sinks.Sink, kind Kind, variant int, next uint64) (again sinks.Sink, term uint64) {
	t.Helper()
	if kind != Crash && variant == 0 {
		return sink, 1
	}
	if kind != Crash {
		closed(t, sink)
	}
	sink = s.open(t, variant, Identity(2, next))
	s.clean(t)
	return sink, 2
}

func againAfterAFault(t *testing.T, s *suite) {
	one, two, three := Records(100, 20), Records(200, 20), Records(300, 20)
	s.eachFault(t, func(t *testing.T, s *suite, p Point, kind Kind) {
		sink := s.open(t, 0, Identity(1, 1))
		s.deliver(t, sink, NewBatch(1, 1, one))
		advance(t, sink, 2)
		if err := s.strike(t, sink, p.Name, kind, NewBatch(1, 2, two), &settler{}); err == nil {
			t.Fatal("Deliver returned nil although it met a fault")
		} else if sinks.IsPermanent(err) {
			t.Fatalf("Deliver returned the permanent error %v, which would stop the sink for good", err)
		}
		sink, term := s.afterwards(t, sink, kind, 0, 2)
		if s.guarantee(t) == sinks.ExactlyOnce && !p.Durable {
			s.sees(t, one)
		}
		s.redeliver(t, sink, NewBatch(term, 2, two))
		s.clean(t)
		advance(t, sink, 3)
		s.deliver(t, sink, NewBatch(term, 3, three))
		closed(t, sink)
		s.sees(t, one, two, three)
	})
}

// changedBetweenAttempts: mapping, format, compression and routing are other ones
// when the batch comes again. What was durable before stays as it was.
func changedBetweenAttempts(t *testing.T, s *suite) {
	s.exactlyOnce(t)
	one, two := Records(100, 20), Records(200, 20)
	fewer := one[5:10]
	for v := 1; v < s.Variants; v++ {
		for _, p := range s.Points {
			t.Run(p.Name, func(t *testing.T) {
				s := s.again(t)
				sink := s.open(t, 0, Identity(1, 1))
				if err := s.strike(t, sink, p.Name, Crash, NewBatch(1, 1, one), &settler{}); err == nil {
					t.Fatal("Deliver returned nil although it met a crash")
				}
				sink, term := s.afterwards(t, sink, Crash, v, 1)
				was := s.Read(t)
				s.redeliver(t, sink, NewBatch(term, 1, fewer))
				if p.Durable {
					sameBatch(t, "after the change", was, s.Read(t))
				}
				if n := count(s.Read(t)); p.Durable && n != len(one) || !p.Durable && n != len(fewer) {
					t.Fatalf("the consumer sees %d records of the batch; it was durable before the change: %v", n, p.Durable)
				}
				s.deliver(t, sink, NewBatch(term, 2, two))
				closed(t, sink)
				// And back again.
				sink = s.open(t, 0, Identity(3, 1))
				was = s.Read(t)
				s.redeliver(t, sink, NewBatch(3, 1, one))
				s.redeliver(t, sink, NewBatch(3, 2, nil))
				sameBatch(t, "after the change back", was, s.Read(t))
				closed(t, sink)
			})
		}
	}
}

func count(seen []Seen) (n int) {
	for _, b := range seen {
		n += len(b.Records)
	}
	return n
}

func sameBatch(t testing.TB, when string, was, is []Seen) {
	t.Helper()
	same := slices.EqualFunc(was, is, func(a, b Seen) bool {
		return a.ID == b.ID && slices.EqualFunc(a.Records, b.Records, func(x, y record.Record) bool { return shown(&x) == shown(&y) })
	})
	if !same {
		t.Fatalf("%s the consumer sees something else: before %d records, now %d", when, count(was), count(is))
	}
}

// withRefused gives n records, those at the given places refused.
func (s *suite) withRefused(t testing.TB, n int, places ...int) (all, good []record.Record, bad []record.RecordID) {
	t.Helper()
	if s.Refused == nil {
		t.Skip("the sink refuses nothing")
	}
	all = Records(500, n)
	for i := range all {
		r := &all[i]
		if !slices.Contains(places, i) {
			good = append(good, *r)
			continue
		}
		s.Refused(r)
		bad = append(bad, record.RecordID{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset})
	}
	return all, good, bad
}

func refusedOnly(t testing.TB, st *settler, want []record.RecordID) {
	t.Helper()
	got := make([]record.RecordID, 0, len(st.refused))
	for _, r := range st.refused {
		if r.Reason == "" {
			t.Errorf("%+v was refused without a reason", r.RecordID)
		}
		got = append(got, r.RecordID)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("refused %+v, want %+v", got, want)
	}
}

func refusals(t *testing.T, s *suite) {
	all, good, bad := s.withRefused(t, 9, 0, 4, 8)
	sink := s.open(t, 0, Identity(1, 1))
	defer closed(t, sink)
	st := &settler{before: func() { s.sees(t) }}
	if err := sink.Deliver(t.Context(), NewBatch(1, 1, all), st.settle); err != nil || st.calls != 1 {
		t.Fatalf("Deliver returned %v after %d calls of settle, want nil after one", err, st.calls)
	}
	refusedOnly(t, st, bad)
	s.sees(t, good)
	s.redeliver(t, sink, NewBatch(1, 1, good))
	s.sees(t, good)
}

func allRefused(t *testing.T, s *suite) {
	all, _, bad := s.withRefused(t, 2, 0, 1)
	sink := s.open(t, 0, Identity(1, 1))
	defer closed(t, sink)
	st := &settler{}
	if err := sink.Deliver(t.Context(), NewBatch(1, 1, all), st.settle); err != nil || st.calls != 1 {
		t.Fatalf("Deliver returned %v after %d calls of settle, want nil after one", err, st.calls)
	}
	refusedOnly(t, st, bad)
	s.sees(t)
	s.clean(t)
}

// refusalsAndAFault: what an attempt left out is settled before the batch is
// durable, so a later attempt, which does not get it any more, loses nothing.
func refusalsAndAFault(t *testing.T, s *suite) {
	s.withRefused(t, 0)
	s.eachFault(t, func(t *testing.T, s *suite, p Point, kind Kind) {
		all, good, bad := s.withRefused(t, 9, 0, 4, 8)
		sink := s.open(t, 0, Identity(1, 1))
		st := &settler{}
		if err := s.strike(t, sink, p.Name, kind, NewBatch(1, 1, all), st); err == nil {
			t.Fatal("Deliver returned nil although it met a fault")
		}
		if p.Durable && st.calls != 1 {
			t.Fatalf("the batch is durable, and settle was called %d times", st.calls)
		}
		comes := good // the log leaves out what was settled
		if st.calls == 0 {
			comes = all
		} else {
			refusedOnly(t, st, bad)
		}
		sink, term := s.afterwards(t, sink, kind, 0, 1)
		st = &settler{}
		if err := sink.Deliver(t.Context(), NewBatch(term, 1, comes), st.settle); err != nil {
			t.Fatalf("delivering again: %v", err)
		}
		if len(comes) == len(all) {
			refusedOnly(t, st, bad)
		} else if len(st.refused) != 0 {
			t.Fatalf("refused %+v again", st.refused)
		}
		closed(t, sink)
		s.sees(t, good)
	})
}

// tooManyRefusals: an attempt does not gather refusals without end.
func tooManyRefusals(t *testing.T, s *suite) {
	s.withRefused(t, 0)
	all := Records(0, 1)
	s.Refused(&all[0])
	sink := s.open(t, 0, Identity(1, 1))
	defer closed(t, sink)
	b := repeat(NewBatch(1, 1, nil), &all[0], sinks.MaxRefusals+1)
	st := &settler{}
	if err := sink.Deliver(t.Context(), b, st.settle); err == nil || sinks.IsPermanent(err) || st.calls != 0 {
		t.Fatalf("Deliver returned %v after %d calls of settle, want a temporary error before any", err, st.calls)
	}
	s.sees(t)
	s.clean(t)
}
