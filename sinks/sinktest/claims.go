package sinktest

import (
	"testing"

	"forebay/internal/record"
	"forebay/sinks"
)

func claimCases() []testCase {
	return []testCase{
		{"Foreign", foreign},
		{"ForeignBatch", foreignBatch},
		{"OlderLog", olderLog},
		{"LowerTermRefused", lowerTermRefused},
		{"DeposedLeader", deposedLeader},
		{"Lanes", lanes},
	}
}

// foreign: another gateway, another log (a wiped data directory), another sink.
func foreign(t *testing.T, s *suite) {
	if s.Unclaimed {
		t.Skip("the destination keeps no identity")
	}
	one, two := Records(100, 5), Records(200, 5)
	sink := s.open(t, 0, Identity(1, 1))
	s.deliver(t, sink, NewBatch(1, 1, one))
	for _, c := range []struct {
		name   string
		change func(*sinks.Identity)
	}{
		{"another gateway", func(id *sinks.Identity) { id.Gateway = "other" }},
		{"another log", func(id *sinks.Identity) { id.LogID = "log-b" }},
		{"another sink", func(id *sinks.Identity) { id.Sink = "visits" }},
	} {
		id := Identity(9, 1)
		c.change(&id)
		other := s.Make(t, 0)
		refuses(t, c.name, other.Open(t.Context(), id), sinks.ErrForeign)
		if err := other.Deliver(t.Context(), NewBatch(9, 2, two), (&settler{}).settle); err == nil {
			t.Errorf("%s: Deliver returned nil after Open failed", c.name)
		}
		if err := other.Close(); err != nil {
			t.Errorf("%s: Close after Open failed: %v", c.name, err)
		}
	}
	s.deliver(t, sink, NewBatch(1, 2, two))
	closed(t, sink)
	closed(t, s.open(t, 0, Identity(2, 3)))
	s.sees(t, one, two)
}

// olderLog: a data directory was brought back from a backup in which the last batch that was
// delivered had not been cut. Its number would be given to other records.
func olderLog(t *testing.T, s *suite) {
	s.exactlyOnce(t)
	one, two := Records(100, 5), Records(200, 5)
	sink := s.open(t, 0, Identity(1, 1))
	s.deliver(t, sink, NewBatch(1, 1, one))
	advance(t, sink, 2)
	s.deliver(t, sink, NewBatch(1, 2, two)) // and killed before the done
	closed(t, sink)
	id := Identity(2, 2)
	id.Newest.Seq = 1
	older := s.Make(t, 0)
	refuses(t, "a log that has not cut what is there", older.Open(t.Context(), id), sinks.ErrAhead)
	closed(t, older)
	id.Newest.Seq = 2
	same := s.open(t, 0, id)
	s.redeliver(t, same, NewBatch(2, 2, two))
	closed(t, same)
	s.sees(t, one, two)
}

func foreignBatch(t *testing.T, s *suite) {
	sink := s.open(t, 0, Identity(3, 1))
	defer closed(t, sink)
	for _, c := range []struct {
		name   string
		change func(*record.Batch)
	}{
		{"another gateway", func(b *record.Batch) { b.Gateway = "other" }},
		{"another log", func(b *record.Batch) { b.LogID = "log-b" }},
		{"another lane", func(b *record.Batch) { b.ID.Lane = 7 }},
		{"a lower term", func(b *record.Batch) { b.Term = 2 }},
		{"a higher term", func(b *record.Batch) { b.Term = 4 }},
	} {
		b := NewBatch(3, 1, Records(0, 3))
		c.change(&b)
		if err := sink.Deliver(t.Context(), b, (&settler{}).settle); !sinks.IsPermanent(err) {
			t.Errorf("%s: Deliver returned %v, want a permanent error", c.name, err)
		}
	}
	s.sees(t)
}

func lowerTermRefused(t *testing.T, s *suite) {
	if !s.Fences {
		t.Skip("the destination cannot fence")
	}
	one := Records(100, 5)
	older := s.open(t, 0, Identity(4, 1))
	newer := s.open(t, 0, Identity(5, 1))
	refuses(t, "opening under a lower term", s.Make(t, 0).Open(t.Context(), Identity(4, 1)), sinks.ErrFenced)
	refuses(t, "delivering under a lower term", older.Deliver(t.Context(), NewBatch(4, 1, one), (&settler{}).settle), sinks.ErrFenced)
	s.sees(t)
	s.deliver(t, newer, NewBatch(5, 1, one))
	closed(t, older)
	closed(t, newer)
	s.clean(t)
	s.sees(t, one)
}

// deposedLeader: the old leader stands still in the middle of a delivery while a
// new one, with other settings, delivers the same batch and the next; then it goes on.
func deposedLeader(t *testing.T, s *suite) {
	s.exactlyOnce(t)
	if !s.Fences {
		t.Skip("the destination cannot fence")
	}
	one, two := Records(100, 5), Records(200, 5)
	for v := range s.Variants {
		s := s.again(t)
		older := s.open(t, 0, Identity(4, 1))
		var newer sinks.Sink
		var was []Seen
		st := &settler{before: func() {
			newer = s.open(t, v, Identity(5, 1))
			s.deliver(t, newer, NewBatch(5, 1, one))
			advance(t, newer, 2)
			was = s.Read(t)
		}}
		refuses(t, "the old leader's delivery", older.Deliver(t.Context(), NewBatch(4, 1, one), st.settle), sinks.ErrFenced)
		sameBatch(t, "after the old leader went on", was, s.Read(t))
		s.deliver(t, newer, NewBatch(5, 2, two))
		closed(t, older)
		closed(t, newer)
		if n := count(s.Read(t)); n != len(one)+len(two) {
			t.Fatalf("the consumer sees %d records, want %d", n, len(one)+len(two))
		}
	}
}

// lanes: two lanes deliver batches of the same numbers at the same time.
func lanes(t *testing.T, s *suite) {
	if s.OneLane {
		t.Skip("the destination is for one lane")
	}
	one, two := Records(100, 5), Records(200, 5)
	first := s.open(t, 0, Identity(1, 1))
	id := Identity(8, 1)
	id.Lane, id.Next.Lane = 1, 1
	second := s.open(t, 0, id)
	b := NewBatch(8, 1, two)
	b.ID.Lane = 1
	s.deliver(t, first, NewBatch(1, 1, one))
	s.deliver(t, second, b)
	s.redeliver(t, second, b)
	s.redeliver(t, first, NewBatch(1, 1, one))
	closed(t, first)
	closed(t, second)
	s.sees(t, one, two)
}
