package state

import (
	"fmt"
	"sync"
	"testing"

	"forebay/internal/record"
)

// wide is a lane that knows n partitions of w, all at 0.
func wide(t testing.TB, n int) *log {
	t.Helper()
	l := newLog(t)
	var b Bases
	for i := range n {
		b.Bases = append(b.Bases, record.Base{Topic: "w", TopicID: idA, Partition: int32(i)})
	}
	l.ok(b)
	return l
}

// wideBatch cuts a batch with one record of each of n partitions of w.
func (l *log) wideBatch(n int) {
	l.t.Helper()
	sum := record.Summary{}
	for i := range n {
		pos, _ := l.s.Position("w", int32(i))
		sum.Spans = append(sum.Spans, record.Span{
			Topic: "w", TopicID: idA, Partition: int32(i),
			Base: pos.Next, First: pos.Next, Last: pos.Next, Records: 1, Bytes: 1,
		})
	}
	l.index++
	if err := l.s.applyBlock(l.index, &sum); err != nil {
		l.t.Fatal(err)
	}
	l.s.applied = l.index
	l.cut()
}

func TestRangesAreBounded(t *testing.T) {
	const n = MaxRanges / 4
	l := wide(t, n)
	withRanges := func() (got []int) {
		for _, b := range l.s.Batches(1, 100) {
			got = append(got, len(b.Ranges))
		}
		return got
	}
	for range 6 {
		l.wideBatch(n)
	}
	diff(t, []int{0, 0, n, n, n, n}, withRanges())
	l.ok(Release{Term: 1, Seq: 1, At: at0})
	l.wideBatch(n)
	for range 2 {
		diff(t, []int{0, 0, n, n, n, n}, withRanges())
		l.restart()
	}
	l.wideBatch(1)
	diff(t, []int{0, 0, 0, n, n, n, 1}, withRanges())
	l.ok(Release{Term: 1, Seq: 6, At: at0})
	l.wideBatch(n)
	l.wideBatch(n)
	diff(t, []int{n, 1, n, n}, withRanges())
	l.ok(Release{Term: 1, Seq: 10, At: at0})
	l.wideBatch(n)
	diff(t, []int{n}, withRanges())
	l.restart()
	diff(t, []int{n}, withRanges())
}

func TestRangesOfOneBatchAreBounded(t *testing.T) {
	const n = MaxRanges + 1
	l := wide(t, n)
	l.wideBatch(n)
	l.wideBatch(2)
	for range 2 {
		one, _ := l.s.Batch(1)
		two, _ := l.s.Batch(2)
		if len(one.Ranges) != 0 || one.Records != n || len(two.Ranges) != 2 {
			t.Errorf("batches have %d and %d ranges", len(one.Ranges), len(two.Ranges))
		}
		l.restart()
	}
}

func TestHistoryIsBounded(t *testing.T) {
	l := newLog(t)
	const over = 3
	for i := range int64(MaxHistory + over) {
		l.ok(Advance{At: at0, Advance: record.Advance{Topic: "u", TopicID: idA, Base: i, Next: i + 1, Reason: record.AdvanceExpired}})
	}
	l.restart()
	if g := l.s.Gaps(); len(g) != MaxHistory || g[0].First != over || l.s.GapsForgotten() != over {
		t.Errorf("%d gaps from %v on, %d forgotten", len(g), g[0], l.s.GapsForgotten())
	}
	for i := range uint64(MaxHistory + over) {
		from, to := record.TopicID{1: byte(i), 2: byte(i >> 8), 3: byte(i >> 16)}, record.TopicID{1: byte(i + 1), 2: byte((i + 1) >> 8), 3: byte((i + 1) >> 16)}
		if i == 0 {
			from = idA
		}
		l.ok(TopicChange{At: at0, TopicChange: record.TopicChange{Topic: "t", Old: from, New: to}})
	}
	if c := l.s.TopicChanges(); len(c) != MaxHistory || c[0].New[1] != over+1 {
		t.Errorf("%d changes from %v on", len(c), c[0])
	}
}

func TestDroppedIsBounded(t *testing.T) {
	l := newLog(t)
	withSink(l)
	e := Refuse{Sink: "a", Term: 1, Seq: 1, Drop: true, At: at0}
	for i := range int64(MaxDropped + 7) {
		e.Refusals = append(e.Refusals, refusal(i))
	}
	l.ok(e)
	d := l.s.Dropped()
	if k, _ := l.s.Sink("a"); len(d) != MaxDropped || d[0].Record.Offset != 7 || k.Dropped != MaxDropped+7 {
		t.Errorf("%d dropped from %v on, sink %+v", len(d), d[0], k)
	}
	l.restart()
	if n := len(l.s.sinks[0].excluded.places[0].runs); n != 1 || l.s.sinks[0].excluded.records != MaxDropped+7 {
		t.Errorf("exclusions take %d runs", n)
	}
}

func TestValuesAreBounded(t *testing.T) {
	l := newLog(t)
	for i := range MaxValues {
		l.ok(Set{fmt.Sprint("k", i), "v"})
	}
	l.no(Set{"more", "v"}, "there are 1024 values already")
	l.ok(Set{"k0", "w"})
	l.ok(Set{"k0", ""})
	l.ok(Set{"more", "v"})
}

func TestExclusionsInAnyOrder(t *testing.T) {
	for _, order := range [][]int64{{1, 2, 3, 5}, {5, 3, 2, 1}, {1, 3, 2, 5}, {3, 1, 5, 2}, {2, 2, 1, 3, 5, 1}} {
		var x exclusions
		added := 0
		for _, o := range order {
			if x.add(record.RecordID{Topic: "t", Offset: o}) {
				added++
			}
		}
		var got []int64
		for _, id := range x.list() {
			got = append(got, id.Offset)
		}
		diff(t, []int64{1, 2, 3, 5}, got)
		if added != 4 || x.records != 4 || len(x.places[0].runs) != 2 {
			t.Errorf("%v: %d added in runs %v", order, added, x.places[0].runs)
		}
	}
}

// TestReadersTogether is for the race detector: views and Marshal change nothing.
func TestReadersTogether(t *testing.T) {
	l := newLog(t)
	withSink(l)
	l.ok(Refuse{Sink: "a", Term: 1, Seq: 1, Refusals: []RefusedRecord{refusal(100), refusal(101)}, At: at0})
	l.ok(Copies(1, []byte{1})[0])
	l.ok(Copies(1, []byte{1})[0])
	l.ok(large(t, from("t", 0, 106, 1))[0])
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			l.s.Marshal(nil)
			l.s.Floor()
			l.s.Parked()
			l.s.Positions()
			l.s.Sinks()
			l.s.Excluded("a", 1)
			l.s.Batches(1, 10)
			l.s.ToCopy(2, 100, 10)
			l.s.Dones(1)
		})
	}
	wg.Wait()
}

// manyBatches is a state with n batches of 8 ranges and 2 dones each.
func manyBatches(tb testing.TB, n int) *log {
	tb.Helper()
	l := wide(tb, 8)
	l.ok(SinkAdd{Name: "a", At: at0})
	l.ok(SinkAdd{Name: "b", At: at0})
	for range n {
		l.wideBatch(8)
		l.done("a")
		l.done("b")
	}
	clear(l.entries)
	return l
}

func BenchmarkMarshal(b *testing.B) {
	s := manyBatches(b, 100_000).s
	dst := s.Marshal(nil)
	b.SetBytes(int64(len(dst)))
	b.ReportAllocs()
	for b.Loop() {
		dst = s.Marshal(dst[:0])
	}
}

func BenchmarkUnmarshal(b *testing.B) {
	data := manyBatches(b, 100_000).s.Marshal(nil)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Unmarshal(data); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkApplyBlock applies blocks of 256 KiB with 8 partitions, and cuts
// after every 100.
func BenchmarkApplyBlock(b *testing.B) {
	l := wide(b, 8)
	runs := make([]*record.Run, 8)
	value := make([]byte, 1000)
	for i := range runs {
		runs[i] = &record.Run{}
	}
	sealer := record.NewSealer(record.None)
	next := int64(0)
	b.SetBytes(256 * 1000)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		b.StopTimer()
		for i, r := range runs {
			r.Reset("w", idA, int32(i), next)
			for o := range int64(32) {
				if err := r.Append(&record.Record{Offset: next + o, Value: value}); err != nil {
					b.Fatal(err)
				}
			}
		}
		next += 32
		block := sealer.Seal(runs)
		b.StartTimer()
		l.index++
		if out := l.s.Apply(l.index, block); out.Err != nil {
			b.Fatal(out.Err)
		}
		if n%100 == 99 {
			l.cut()
			if l.s.LastSeq()%100 == 0 {
				l.ok(Release{Term: 1, Seq: l.s.LastSeq() - 1, At: at0})
			}
			clear(l.entries)
		}
	}
}
