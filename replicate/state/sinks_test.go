package state

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/record"
)

func diff(t *testing.T, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// batches cuts n batches of one block each.
func batches(n int) func(*log) {
	return func(l *log) {
		for range n {
			p, _ := l.s.Position("t", 0)
			l.ok(small(l.t, from("t", 0, p.Next, 3)))
			l.cut()
		}
	}
}

// withSink is two batches and a sink that has neither.
func withSink(l *log) {
	batches(2)(l)
	l.ok(SinkAdd{Name: "a", Destination: "d", At: at0})
}

func wantCursor(t *testing.T, l *log, name string, cursor uint64) {
	t.Helper()
	if k, ok := l.s.Sink(name); !ok || k.Cursor != cursor {
		t.Errorf("sink %q stands at %d (%t), want %d", name, k.Cursor, ok, cursor)
	}
}

func TestSinkAdd(t *testing.T) {
	runSteps(t, []step{
		{name: "oldest", setup: batches(2), entry: entry(SinkAdd{Name: "a", Destination: "d", At: at0}), check: func(t *testing.T, l *log) {
			diff(t, []record.SinkState{{Name: "a", Cursor: 1, Destination: "d"}}, l.s.Sinks())
		}},
		{name: "newest", setup: batches(2), entry: entry(SinkAdd{Name: "a", Newest: true, At: at0}), check: func(t *testing.T, l *log) { wantCursor(t, l, "a", 3) }},
		{name: "oldest of what is kept", setup: func(l *log) {
			batches(3)(l)
			l.ok(Release{Term: 1, Seq: 2, At: at0})
		}, entry: entry(SinkAdd{Name: "a", At: at0}), check: func(t *testing.T, l *log) { wantCursor(t, l, "a", 3) }},
		{name: "before the first batch", entry: entry(SinkAdd{Name: "a", At: at0}), check: func(t *testing.T, l *log) { wantCursor(t, l, "a", 1) }},
		{name: "known", setup: withSink, entry: entry(SinkAdd{Name: "a", At: at0}), words: `sink "a" is there already`},
		{name: "no name", entry: entry(SinkAdd{At: at0}), words: "needs a name"},
	})
}

func TestSinkRemove(t *testing.T) {
	runSteps(t, []step{
		{name: "at its cursor", setup: func(l *log) { withSink(l); l.done("a") }, entry: entry(SinkRemove{Name: "a", GivesUpFrom: 2, At: at0}), check: func(t *testing.T, l *log) {
			if len(l.s.Sinks()) != 0 || len(l.s.Dones(1)) != 0 {
				t.Errorf("sinks %v, dones %v", l.s.Sinks(), l.s.Dones(1))
			}
		}},
		{name: "elsewhere", setup: withSink, entry: entry(SinkRemove{Name: "a", GivesUpFrom: 2, At: at0}), words: `sink "a" needs batch 1 next, not 2`},
		{name: "unknown", entry: entry(SinkRemove{Name: "a", GivesUpFrom: 1, At: at0}), words: `there is no sink "a"`},
	})
}

func TestSinkPause(t *testing.T) {
	paused := func(want bool) func(*testing.T, *log) {
		return func(t *testing.T, l *log) {
			if k, _ := l.s.Sink("a"); k.Paused != want {
				t.Errorf("sink %+v", k)
			}
		}
	}
	runSteps(t, []step{
		{name: "pauses", setup: withSink, entry: entry(SinkPause{Name: "a", Paused: true, At: at0}), check: paused(true)},
		{name: "resumes", setup: func(l *log) { withSink(l); l.ok(SinkPause{Name: "a", Paused: true, At: at0}) }, entry: entry(SinkPause{Name: "a", At: at0}), check: paused(false)},
		{name: "unknown", entry: entry(SinkPause{Name: "a", At: at0}), words: `there is no sink "a"`},
	})
}

func TestDone(t *testing.T) {
	of := func(sink string, term, seq uint64) func(*log) any {
		return entry(Done{Term: term, Done: record.Done{Sink: sink, Seq: seq, Attempts: 2, StartedAt: at0, DoneAt: at0 + 7}})
	}
	runSteps(t, []step{
		{name: "moves the cursor by one", setup: withSink, entry: of("a", 1, 1), check: func(t *testing.T, l *log) {
			wantCursor(t, l, "a", 2)
			diff(t, []record.Done{{Sink: "a", Seq: 1, Attempts: 2, StartedAt: at0, DoneAt: at0 + 7}}, l.s.Dones(1))
			if l.s.Clock() != at0+7 {
				t.Errorf("clock %d", l.s.Clock())
			}
		}},
		{name: "of a later batch", setup: withSink, entry: of("a", 1, 2), words: "needs batch 1 next, not 2"},
		{name: "of a deposed leader", setup: func(l *log) { withSink(l); l.ok(Begin{Term: 2, Node: "n2", At: at0}) }, entry: of("a", 1, 1), words: "it is of term 1, the term is 2"},
		{name: "twice", setup: func(l *log) { withSink(l); l.done("a") }, entry: of("a", 1, 1), words: "needs batch 2 next, not 1"},
		{name: "not cut", setup: func(l *log) { withSink(l); l.done("a"); l.done("a") }, entry: of("a", 1, 3), words: "batch 3 has not been cut"},
		{name: "unknown sink", setup: withSink, entry: of("b", 1, 1), words: `there is no sink "b"`},
	})
}

// refusal is of one record of batch 1 of withSink, which lies in entry 4.
func refusal(offset int64) RefusedRecord {
	return RefusedRecord{
		Refusal: record.Refusal{RecordID: record.RecordID{Topic: "t", Offset: offset}, Reason: "no number"},
		Indexes: []uint64{4}, Bytes: 10,
	}
}

func TestRefuse(t *testing.T) {
	of := func(term, seq uint64, drop bool, r ...RefusedRecord) Refuse {
		return Refuse{Sink: "a", Term: term, Seq: seq, Drop: drop, Refusals: r, At: at0}
	}
	elsewhere := refusal(101)
	elsewhere.Indexes = []uint64{6}
	runSteps(t, []step{
		{name: "parks", setup: withSink, entry: entry(of(1, 1, false, refusal(101), refusal(100))), check: func(t *testing.T, l *log) {
			k, _ := l.s.Sink("a")
			if k.Parked != 2 || k.Dropped != 0 || l.s.ParkedBytes() != 2*(10+ParkedOverhead) {
				t.Errorf("sink %+v, %d bytes", k, l.s.ParkedBytes())
			}
			diff(t, []record.RecordID{{Topic: "t", Offset: 100}, {Topic: "t", Offset: 101}}, l.s.Excluded("a", 1))
			if len(l.s.Excluded("a", 2)) != 0 {
				t.Error("another batch has exclusions")
			}
			p := l.s.Parked()
			want := ParkedRef{Indexes: []uint64{4}, Parked: record.Parked{
				ID: 1, Sink: "a", Batch: record.BatchID{Seq: 1}, Record: record.RecordID{Topic: "t", Offset: 101}, Reason: "no number", Bytes: 10, At: at0,
			}}
			diff(t, want, p[0])
		}},
		{name: "drops", setup: withSink, entry: entry(of(1, 1, true, refusal(101))), check: func(t *testing.T, l *log) {
			k, _ := l.s.Sink("a")
			if k.Parked != 0 || k.Dropped != 1 || len(l.s.Parked()) != 0 {
				t.Errorf("sink %+v", k)
			}
			diff(t, []DroppedRecord{{Sink: "a", Batch: record.BatchID{Seq: 1}, Record: record.RecordID{Topic: "t", Offset: 101}, Reason: "no number", At: at0}}, l.s.Dropped())
		}},
		{name: "what is left out already is not counted again", setup: func(l *log) { withSink(l); l.ok(of(1, 1, false, refusal(101))) }, entry: entry(of(1, 1, true, refusal(101), refusal(102), refusal(102))), check: func(t *testing.T, l *log) {
			if k, _ := l.s.Sink("a"); k.Parked != 1 || k.Dropped != 1 || len(l.s.Excluded("a", 1)) != 2 {
				t.Errorf("sink %+v, excluded %v", k, l.s.Excluded("a", 1))
			}
		}},
		{name: "forgotten with the done", setup: func(l *log) { withSink(l); l.ok(of(1, 1, true, refusal(101))) }, entry: entry(Done{Term: 1, Done: record.Done{Sink: "a", Seq: 1}}), check: func(t *testing.T, l *log) {
			if x := l.s.Excluded("a", 1); len(x) != 0 {
				t.Errorf("excluded %v", x)
			}
		}},
		{name: "a long reason is clipped", setup: withSink, entry: func(*log) any {
			r := refusal(101)
			r.Reason = strings.Repeat("ü", MaxReason)
			return of(1, 1, false, r)
		}, check: func(t *testing.T, l *log) {
			if got := l.s.Parked()[0].Reason; got != strings.Repeat("ü", MaxReason/2) {
				t.Errorf("reason of %d bytes", len(got))
			}
		}},
		{name: "of another term", setup: withSink, entry: entry(of(2, 1, false, refusal(101))), words: "it is of term 2"},
		{name: "of another batch", setup: withSink, entry: entry(of(1, 2, false, refusal(101))), words: "needs batch 1 next, not 2"},
		{name: "not cut", setup: func(l *log) { l.ok(SinkAdd{Name: "a", At: at0}) }, entry: entry(of(1, 1, false)), words: "has not been cut"},
		{name: "in an entry of another batch", setup: withSink, entry: entry(of(1, 1, false, refusal(100), elsewhere)), words: "does not hold the record"},
		{name: "in no entry", setup: withSink, entry: entry(of(1, 1, false, RefusedRecord{})), words: "does not hold the record"},
	})
}

func TestDiscard(t *testing.T) {
	parked := func(l *log) {
		withSink(l)
		l.ok(Refuse{Sink: "a", Term: 1, Seq: 1, Refusals: []RefusedRecord{refusal(100), refusal(101), refusal(102)}, At: at0})
	}
	runSteps(t, []step{
		{name: "forgets", setup: parked, entry: entry(Discard{IDs: []uint64{3, 1}, At: at0}), check: func(t *testing.T, l *log) {
			p := l.s.Parked()
			if len(p) != 1 || p[0].ID != 2 || l.s.ParkedBytes() != 10+ParkedOverhead {
				t.Errorf("parked %v, %d bytes", p, l.s.ParkedBytes())
			}
		}},
		{name: "numbers are never used again", setup: func(l *log) { parked(l); l.ok(Discard{IDs: []uint64{3}, At: at0}); l.done("a") }, entry: func(l *log) any {
			r := refusal(103)
			r.Indexes = []uint64{6}
			return Refuse{Sink: "a", Term: 1, Seq: 2, Refusals: []RefusedRecord{r}, At: at0}
		}, check: func(t *testing.T, l *log) {
			if _, ok := l.s.ParkedRecord(4); !ok {
				t.Errorf("parked %v", l.s.Parked())
			}
		}},
		{name: "unknown", setup: parked, entry: entry(Discard{IDs: []uint64{1, 4}, At: at0}), words: "parked record 4 is not there"},
	})
}

func TestRelease(t *testing.T) {
	of := func(term, seq uint64) func(*log) any { return entry(Release{Term: term, Seq: seq, At: at0 + 3}) }
	kept := func(first, last uint64) func(*testing.T, *log) {
		return func(t *testing.T, l *log) {
			t.Helper()
			if l.s.FirstSeq() != first || l.s.LastSeq() != last || l.s.Released() != first-1 || l.s.Clock() != at0+3 {
				t.Errorf("batches %d to %d, released %d", l.s.FirstSeq(), l.s.LastSeq(), l.s.Released())
			}
			if _, ok := l.s.Batch(first - 1); ok {
				t.Errorf("batch %d is still there", first-1)
			}
		}
	}
	runSteps(t, []step{
		{name: "without sinks", setup: batches(3), entry: of(1, 2), check: kept(3, 3)},
		{name: "all", setup: batches(3), entry: of(1, 3), check: kept(4, 3)},
		{name: "stops short of what a sink needs", setup: func(l *log) {
			batches(3)(l)
			l.ok(SinkAdd{Name: "a", At: at0})
			l.ok(SinkAdd{Name: "b", Newest: true, At: at0})
			l.done("a")
		}, entry: of(1, 3), check: kept(2, 3)},
		{name: "nothing that a sink does not need", setup: withSink, entry: of(1, 2), words: `sink "a" still needs batch 1`},
		{name: "again", setup: func(l *log) { batches(3)(l); l.ok(Release{Term: 1, Seq: 2, At: at0}) }, entry: of(1, 2), words: "batch 2 was released already"},
		{name: "not cut", setup: batches(3), entry: of(1, 4), words: "batch 4 has not been cut"},
		{name: "of another term", setup: batches(3), entry: of(0, 2), words: "it is of term 0"},
	})
}
