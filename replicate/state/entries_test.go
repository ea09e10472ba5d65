package state

import (
	"errors"
	"math"
	"strings"
	"testing"

	"forebay/internal/record"
)

// step is one entry on a lane of newLog. words "" means that it is accepted.
type step struct {
	name  string
	setup func(*log)
	entry func(*log) any
	words string
	check func(*testing.T, *log)
}

func runSteps(t *testing.T, steps []step) {
	t.Helper()
	for _, st := range steps {
		t.Run(st.name, func(t *testing.T) {
			l := newLog(t)
			if st.setup != nil {
				st.setup(l)
			}
			e := st.entry(l)
			if st.words == "" {
				l.ok(e)
			} else {
				l.no(e, st.words)
			}
			if st.check != nil {
				st.check(t, l)
				l.restart()
				st.check(t, l)
			}
		})
	}
}

// entry makes a step's entry of a plain value.
func entry(e any) func(*log) any { return func(*log) any { return e } }

func wantNext(t *testing.T, l *log, topic string, partition int32, id record.TopicID, next int64) {
	t.Helper()
	got, ok := l.s.Position(topic, partition)
	if want := (record.Position{TopicID: id, Next: next}); !ok || got != want {
		t.Errorf("%s/%d stands at %v (%t), want %v", topic, partition, got, ok, want)
	}
}

func TestForm(t *testing.T) {
	runSteps(t, []step{{name: "a second one", entry: entry(theForm()), words: "the lane is formed already, as log 0102"}})
	for name, change := range map[string]func(*Form){
		"no gateway":   func(f *Form) { f.Gateway = "" },
		"no node":      func(f *Form) { f.Node = "" },
		"no log id":    func(f *Form) { f.LogID = LogID{} },
		"lane too far": func(f *Form) { f.Lane = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			l := &log{t: t, s: New(), entries: map[uint64][]byte{}}
			f := theForm()
			change(&f)
			l.no(f, "a lane needs")
		})
	}
	t.Run("is the first entry", func(t *testing.T) {
		l := &log{t: t, s: New(), entries: map[uint64][]byte{}}
		l.no(Begin{Term: 1, Node: "n1", At: at0}, "the lane is not formed")
		l.no(Cut{Term: 0, Seq: 1, At: at0}, "the lane is not formed")
		l.no(small(t, from("t", 0, 0, 1)), "the lane is not formed")
		l.ok(theForm())
		if f, ok := l.s.Identity(); !ok || f != theForm() {
			t.Errorf("identity %v, %t", f, ok)
		}
	})
}

func TestBegin(t *testing.T) {
	runSteps(t, []step{
		{name: "a higher term", entry: entry(Begin{Term: 7, Node: "n2", At: at0 + 5}), check: func(t *testing.T, l *log) {
			if l.s.Term() != 7 || l.s.Clock() != at0+5 {
				t.Errorf("term %d, clock %d", l.s.Term(), l.s.Clock())
			}
		}},
		{name: "the same term", entry: entry(Begin{Term: 1, Node: "n2", At: at0}), words: "term 1 does not follow term 1"},
		{name: "a broken clock", entry: entry(Begin{Term: 2, Node: "n2", At: math.MaxInt64}), words: "broken"},
	})
}

func TestBases(t *testing.T) {
	bases := func(b ...record.Base) func(*log) any { return entry(Bases{Bases: b, At: at0}) }
	runSteps(t, []step{
		{
			name:  "new ones, and known ones are left",
			entry: bases(record.Base{Topic: "t", TopicID: idA, Partition: 0, Next: 7}, record.Base{Topic: "t", TopicID: idA, Partition: 2, Next: 5}, record.Base{Topic: "v", TopicID: idB, Partition: 0, Next: 1}),
			check: func(t *testing.T, l *log) {
				wantNext(t, l, "t", 0, idA, 100)
				wantNext(t, l, "t", 2, idA, 5)
				wantNext(t, l, "v", 0, idB, 1)
				if got := strings.Join(l.s.Topics(), " "); got != "t u v" {
					t.Errorf("topics %q", got)
				}
			},
		},
		{name: "another id", entry: bases(record.Base{Topic: "v", TopicID: idA}, record.Base{Topic: "t", TopicID: idB, Partition: 9}), words: `topic "t" is 0a`},
		{name: "two ids at once", entry: bases(record.Base{Topic: "v", TopicID: idA}, record.Base{Topic: "v", TopicID: idB, Partition: 1}), words: `topic "v" is 0a`},
		{name: "one twice", entry: bases(record.Base{Topic: "v", TopicID: idA}, record.Base{Topic: "v", TopicID: idA, Next: 1}), words: "begins twice"},
		{name: "below zero", entry: bases(record.Base{Topic: "v", TopicID: idA, Next: -1}), words: "cannot begin at -1"},
	})
}

func TestAdvance(t *testing.T) {
	advance := func(base, next int64, r record.AdvanceReason) func(*log) any {
		return entry(Advance{At: at0, Advance: record.Advance{Topic: "t", TopicID: idA, Base: base, Next: next, Reason: r}})
	}
	gaps := func(next, first, last int64, n int) func(*testing.T, *log) {
		return func(t *testing.T, l *log) {
			wantNext(t, l, "t", 0, idA, next)
			g := l.s.Gaps()
			if len(g) != n || n > 0 && (g[0].First != first || g[0].Last != last) {
				t.Errorf("gaps %v", g)
			}
		}
	}
	runSteps(t, []step{
		{name: "control is no gap", entry: advance(100, 150, record.AdvanceControl), check: gaps(150, 0, 0, 0)},
		{name: "expired", entry: advance(100, 150, record.AdvanceExpired), check: gaps(150, 100, 149, 1)},
		{name: "skipped", entry: advance(100, 101, record.AdvanceSkipped), check: gaps(101, 100, 100, 1)},
		{name: "truncated goes back", entry: advance(100, 80, record.AdvanceTruncated), check: gaps(80, 80, 99, 1)},
		{name: "truncated forward", entry: advance(100, 120, record.AdvanceTruncated), words: "cannot advance from 100 to 120"},
		{name: "expired backward", entry: advance(100, 80, record.AdvanceExpired), words: "cannot advance from 100 to 80"},
		{name: "nowhere", entry: advance(100, 100, record.AdvanceControl), words: "cannot advance"},
		{name: "below zero", entry: advance(100, -1, record.AdvanceTruncated), words: "cannot advance"},
		{name: "another base", entry: advance(99, 150, record.AdvanceControl), words: "goes on at 100, not at 99"},
		{name: "no reason", entry: advance(100, 150, 0), words: "reason 0"},
		{name: "unknown partition", entry: entry(Advance{Advance: record.Advance{Topic: "t", TopicID: idA, Partition: 5, Next: 1, Reason: 1}}), words: "its base comes first"},
		{name: "another id", entry: entry(Advance{Advance: record.Advance{Topic: "t", TopicID: idB, Base: 100, Next: 101, Reason: 1}}), words: `topic "t" is 0a`},
	})
}

func TestTopicChange(t *testing.T) {
	change := func(topic string, from, to record.TopicID, suspect uint64) func(*log) any {
		return entry(TopicChange{TopicChange: record.TopicChange{Topic: topic, Old: from, New: to}, Suspect: suspect, At: at0})
	}
	runSteps(t, []step{
		{name: "all partitions start at 0", entry: change("t", idA, idB, 2), check: func(t *testing.T, l *log) {
			wantNext(t, l, "t", 0, idB, 0)
			wantNext(t, l, "t", 1, idB, 0)
			wantNext(t, l, "u", 0, idA, 0)
			if c := l.s.TopicChanges(); len(c) != 1 || c[0].Suspect != 2 || c[0].Index != l.index {
				t.Errorf("changes %v", c)
			}
		}},
		{name: "another old id", entry: change("t", idB, record.TopicID{0xc}, 0), words: `topic "t" is 0a`},
		{name: "no change", entry: change("t", idA, idA, 0), words: "already"},
		{name: "unknown topic", entry: change("x", idA, idB, 0), words: "has no positions"},
		{name: "suspect in the future", entry: change("t", idA, idB, 1000), words: "comes after the change"},
	})
}

func TestBlock(t *testing.T) {
	blocks := func(c ...claim) func(*log) any { return func(l *log) any { return small(l.t, c...) } }
	runSteps(t, []step{
		{name: "moves each position", entry: blocks(from("t", 0, 100, 5), from("u", 0, 0, 2)), check: func(t *testing.T, l *log) {
			wantNext(t, l, "t", 0, idA, 105)
			wantNext(t, l, "u", 0, idA, 2)
			if o := l.s.Open(); o.Records != 7 || o.Bytes != 70 || o.Seq != 1 {
				t.Errorf("open batch %+v", o)
			}
		}},
		{name: "holes", entry: blocks(claim{"t", idA, 0, 100, []int64{103, 110}}), check: func(t *testing.T, l *log) { wantNext(t, l, "t", 0, idA, 111) }},
		{name: "one span that does not fit refuses all", entry: blocks(from("u", 0, 0, 2), from("t", 0, 99, 5)), words: "goes on at 100, not at 99", check: func(t *testing.T, l *log) { wantNext(t, l, "u", 0, idA, 0) }},
		{name: "another id", entry: blocks(from("t", 0, 100, 5).of(idB)), words: `topic "t" is 0a`},
		{name: "no base", entry: blocks(from("t", 7, 0, 5)), words: "its base comes first"},
		{name: "again", setup: func(l *log) { l.ok(small(l.t, from("t", 0, 100, 5))) }, entry: blocks(from("t", 0, 100, 5)), words: "goes on at 105, not at 100"},
	})
}

func TestBlockThatCannotBe(t *testing.T) {
	good := record.Span{Topic: "t", TopicID: idA, Partition: 0, Base: 100, First: 100, Last: 104, Records: 5, Bytes: 10}
	for name, tc := range map[string]struct {
		spans []record.Span
		words string
	}{
		"good":              {[]record.Span{good}, ""},
		"twice":             {[]record.Span{good, good}, "twice"},
		"none":              {nil, "without spans"},
		"first before base": {[]record.Span{{Topic: "t", TopicID: idA, Base: 100, First: 99, Last: 99, Records: 1}}, "cannot be"},
		"last before first": {[]record.Span{{Topic: "t", TopicID: idA, Base: 100, First: 105, Last: 104, Records: 1}}, "cannot be"},
		"no records":        {[]record.Span{{Topic: "t", TopicID: idA, Base: 100, First: 100, Last: 104}}, "cannot be"},
		"too many records":  {[]record.Span{{Topic: "t", TopicID: idA, Base: 100, First: 100, Last: 101, Records: 3}}, "cannot be"},
		"the end of time":   {[]record.Span{{Topic: "t", TopicID: idA, Base: 100, First: 100, Last: math.MaxInt64, Records: 3}}, "cannot be"},
		"bytes below zero":  {[]record.Span{{Topic: "t", TopicID: idA, Base: 100, First: 100, Last: 101, Records: 1, Bytes: -1}}, "cannot be"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			before := l.meaning()
			err := l.s.applyBlock(100, &record.Summary{Spans: tc.spans})
			switch {
			case tc.words == "" && err != nil:
				t.Fatal(err)
			case tc.words != "" && (!errors.Is(err, record.ErrRefused) || !strings.Contains(err.Error(), tc.words)):
				t.Fatalf("outcome %v, want %q", err, tc.words)
			case tc.words != "" && l.meaning() != before:
				t.Fatal("a refused block changed the state")
			}
		})
	}
}

func TestCut(t *testing.T) {
	one := func(l *log) { l.ok(small(l.t, from("t", 0, 100, 5))) }
	runSteps(t, []step{
		{name: "ends the open batch", setup: one, entry: entry(Cut{Term: 1, Seq: 1, At: at0 + 9}), check: func(t *testing.T, l *log) {
			b, ok := l.s.Batch(1)
			want := record.BatchInfo{
				ID: record.BatchID{Seq: 1}, CutAt: at0 + 9, Records: 5, Bytes: 50, FirstIndex: 4, LastIndex: 4,
				Ranges: []record.Range{{Topic: "t", Partition: 0, First: 100, Last: 104}},
			}
			diff(t, want, b)
			if !ok || l.s.LastSeq() != 1 || l.s.FirstSeq() != 1 {
				t.Errorf("batches %d to %d", l.s.FirstSeq(), l.s.LastSeq())
			}
			if o := l.s.Open(); o != (record.OpenBatch{Seq: 2, LastCutAt: at0 + 9}) {
				t.Errorf("open batch %+v", o)
			}
		}},
		{name: "of another term", setup: one, entry: entry(Cut{Term: 2, Seq: 1, At: at0}), words: "it is of term 2, the term is 1"},
		{name: "of another number", setup: one, entry: entry(Cut{Term: 1, Seq: 2, At: at0}), words: "the next batch is 1, not 2"},
		{name: "a broken clock", setup: one, entry: entry(Cut{Term: 1, Seq: 1, At: -1}), words: "broken"},
	})
	t.Run("outcome", func(t *testing.T) {
		l := newLog(t)
		if out := l.apply(Cut{Term: 1, Seq: 1, At: at0}); !errors.Is(out.Err, record.ErrNothingToCut) {
			t.Fatalf("an empty cut came to %v", out)
		}
		one(l)
		if out := l.apply(Cut{Term: 1, Seq: 1, At: at0}); out != (Outcome{Seq: 1}) {
			t.Fatalf("a cut came to %v", out)
		}
	})
}

func TestSet(t *testing.T) {
	runSteps(t, []step{
		{name: "writes", entry: entry(Set{"k", "v"}), check: func(t *testing.T, l *log) {
			if v, ok := l.s.Value("k"); v != "v" || !ok {
				t.Errorf("value %q %t", v, ok)
			}
		}},
		{name: "an empty value removes", setup: func(l *log) { l.ok(Set{"k", "v"}) }, entry: entry(Set{"k", ""}), check: func(t *testing.T, l *log) {
			if v, ok := l.s.Value("k"); ok {
				t.Errorf("value %q", v)
			}
		}},
		{name: "no key", entry: entry(Set{"", "v"}), words: "a key has 1 to 256 bytes"},
		{name: "too large", entry: entry(Set{"k", strings.Repeat("v", MaxValue+1)}), words: "a value up to 65536"},
	})
}

func TestEntryThatNobodyCanRead(t *testing.T) {
	for name, tc := range map[string]struct {
		entry []byte
		want  error
	}{
		"empty":           {nil, nil},
		"one byte":        {[]byte{tagCut}, nil},
		"unknown kind":    {[]byte{0x7f, 1}, ErrVersion},
		"newer version":   {[]byte{tagCut, 2, 1, 1, 1}, ErrVersion},
		"cut short":       {Encode(theForm())[:20], nil},
		"bytes after":     {append(Encode(Cut{Term: 1, Seq: 1}), 0), nil},
		"no block at all": {[]byte{record.TagBlock, 0xff, 0xff}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			before := string(l.s.Marshal(nil))
			var fatal *FatalError
			out := l.s.Apply(l.index+1, tc.entry)
			if !errors.As(out.Err, &fatal) || fatal.Index != l.index+1 || (tc.want != nil && !errors.Is(out.Err, tc.want)) {
				t.Fatalf("outcome %v", out.Err)
			}
			if string(l.s.Marshal(nil)) != before {
				t.Error("the state changed")
			}
		})
	}
	t.Run("applied before", func(t *testing.T) {
		l := newLog(t)
		var fatal *FatalError
		if out := l.s.Apply(l.index, Encode(Set{"k", "v"})); !errors.As(out.Err, &fatal) {
			t.Fatalf("outcome %v", out.Err)
		}
	})
}
