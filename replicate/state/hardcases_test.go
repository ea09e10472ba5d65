package state

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"

	"forebay/internal/record"
)

// HARD-CASES 1: P1 is lost, P2 was pipelined behind it and arrives.
func TestLostPredecessorLooksLikeAHole(t *testing.T) {
	l := newLog(t)
	p1, p2 := small(t, from("t", 0, 100, 100)), small(t, from("t", 0, 200, 100))
	l.no(p2, `"t"/0 goes on at 100, not at 200`)
	l.ok(p1) // the receiver took up again from the state's position
	l.ok(p2)
	l.cut()
	wantBatch(t, l, 1, listed("t", 0, 100, 200))
}

// HARD-CASES 2: what was refused lies between two cuts and is in no batch.
func TestRefusedBlocksStayInTheLog(t *testing.T) {
	l := newLog(t)
	l.ok(small(t, from("t", 0, 100, 2)))
	r1 := l.no(small(t, from("t", 0, 100, 2)), "goes on at 102")
	l.ok(small(t, from("t", 0, 102, 2)))
	l.no(small(t, from("t", 0, 100, 2)), "goes on at 104") // after the last that was accepted
	l.cut()
	l.no(small(t, from("t", 0, 100, 2)), "goes on at 104") // before the first that is
	l.ok(small(t, from("t", 0, 104, 2)))
	l.cut()
	one, _ := l.s.Layout(1)
	diff(t, Layout{FirstIndex: 4, LastIndex: 6, Skip: []uint64{r1}}, one)
	two, _ := l.s.Layout(2)
	diff(t, Layout{FirstIndex: l.index - 1, LastIndex: l.index - 1}, two)
	wantBatch(t, l, 1, listed("t", 0, 100, 4))
	wantBatch(t, l, 2, listed("t", 0, 104, 2))
}

// HARD-CASES 2: every entry says what it expects, so a second copy of any
// entry changes nothing.
func TestEntryThatComesTwice(t *testing.T) {
	l := newLog(t)
	l.ok(small(t, from("t", 0, 100, 2)))
	l.cut()
	l.ok(SinkAdd{Name: "a", At: at0})
	for _, e := range []any{
		small(t, from("t", 0, 102, 2)),
		Done{Term: 1, Done: record.Done{Sink: "a", Seq: 1, DoneAt: at0}},
		Advance{At: at0, Advance: record.Advance{Topic: "u", TopicID: idA, Base: 0, Next: 10, Reason: record.AdvanceExpired}},
		SinkAdd{Name: "b", At: at0},
	} {
		l.ok(e)
		l.no(e, "")
	}
	l.done("b")
	l.cut()
	l.no(Cut{Term: 1, Seq: 2, At: at0}, "the next batch is 3")
	l.ok(Release{Term: 1, Seq: 1, At: at0})
	l.no(Release{Term: 1, Seq: 1, At: at0}, "released already")
}

// HARD-CASES 3: what a deposed leader still had in flight changes nothing.
func TestDeposedLeadersEntries(t *testing.T) {
	l := newLog(t)
	withSink(l)
	l.ok(small(t, from("t", 0, 106, 1)))
	l.ok(Begin{Term: 3, Node: "n2", At: at0})
	l.no(Cut{Term: 1, Seq: 3, At: at0}, "it is of term 1, the term is 3")
	l.no(Done{Term: 1, Done: record.Done{Sink: "a", Seq: 1}}, "it is of term 1")
	l.no(Refuse{Term: 1, Sink: "a", Seq: 1, Refusals: []RefusedRecord{refusal(100)}}, "it is of term 1")
	l.no(Release{Term: 1, Seq: 1}, "it is of term 1")
	l.no(Begin{Term: 2, Node: "n1", At: at0}, "term 2 does not follow term 3")
}

// HARD-CASES 4: control records and holes at a partition's end are no gap.
func TestHolesAtAPartitionsEnd(t *testing.T) {
	l := newLog(t)
	l.ok(small(t, from("t", 0, 100, 2)))
	l.ok(Advance{At: at0, Advance: record.Advance{Topic: "t", TopicID: idA, Base: 102, Next: 110, Reason: record.AdvanceControl}})
	l.ok(small(t, from("t", 0, 110, 2)))
	l.cut()
	b, _ := l.s.Batch(1)
	diff(t, []record.Range{{Topic: "t", First: 100, Last: 111}}, b.Ranges)
	if g := l.s.Gaps(); len(g) != 0 {
		t.Errorf("gaps %v", g)
	}
}

// HARD-CASES 4: a gap uses the same entry, is kept for ever, and parts the
// ranges of the batch that it falls into.
func TestGapPartsTheRanges(t *testing.T) {
	l := newLog(t)
	l.ok(small(t, from("t", 0, 100, 2), from("u", 0, 0, 1)))
	l.ok(Advance{At: at0, Advance: record.Advance{Topic: "t", TopicID: idA, Base: 102, Next: 110, Reason: record.AdvanceExpired}})
	l.restart()
	l.ok(small(t, from("t", 0, 110, 2)))
	l.ok(small(t, from("t", 1, 0, 2)))
	l.ok(small(t, from("t", 0, 112, 2)))
	l.cut()
	b, _ := l.s.Batch(1)
	diff(t, []record.Range{
		{Topic: "t", First: 100, Last: 101},
		{Topic: "t", First: 110, Last: 113},
		{Topic: "t", Partition: 1, First: 0, Last: 1},
		{Topic: "u", First: 0, Last: 0},
	}, b.Ranges)
	diff(t, []record.Gap{{Topic: "t", TopicID: idA, First: 102, Last: 109, Reason: record.AdvanceExpired, At: at0}}, l.s.Gaps())
}

// HARD-CASES 5: old offsets are never applied to a topic that was made again.
func TestTopicMadeAgain(t *testing.T) {
	l := newLog(t)
	l.ok(small(t, from("t", 1, 0, 3)))
	suspect := l.index + 1
	l.ok(TopicChange{TopicChange: record.TopicChange{Topic: "t", Old: idA, New: idB}, Suspect: suspect, At: at0})
	l.no(small(t, from("t", 1, 3, 3)), `topic "t" is 0b`)
	l.no(small(t, from("t", 0, 0, 3)), `topic "t" is 0b`)
	l.no(Bases{At: at0, Bases: []record.Base{{Topic: "t", TopicID: idA, Partition: 4, Next: 1}}}, `topic "t" is 0b`)
	l.restart()
	l.ok(small(t, from("t", 1, 0, 4).of(idB)))
	l.ok(Bases{At: at0, Bases: []record.Base{{Topic: "t", TopicID: idB, Partition: 4, Next: 1}}})
	l.cut()
	b, _ := l.s.Batch(1)
	diff(t, []record.Range{{Topic: "t", Partition: 1, First: 0, Last: 2}, {Topic: "t", Partition: 1, First: 0, Last: 3}}, b.Ranges)
	want := TopicReplaced{TopicChange: record.TopicChange{Topic: "t", Old: idA, New: idB}, Suspect: suspect, Index: suspect, At: at0}
	diff(t, []TopicReplaced{want}, l.s.TopicChanges())
}

// HARD-CASES 6: no block of a partition whose first offset was not recorded.
func TestFirstOffsetIsRecordedFirst(t *testing.T) {
	l := newLog(t)
	l.no(small(t, from("t", 2, 50, 1)), `"t"/2 has no position yet: its base comes first`)
	l.ok(Bases{At: at0, Bases: []record.Base{{Topic: "t", TopicID: idA, Partition: 2, Next: 50}}})
	l.ok(small(t, from("t", 2, 50, 1)))
	// A second leader that looked at Kafka again does not move it.
	l.ok(Bases{At: at0, Bases: []record.Base{{Topic: "t", TopicID: idA, Partition: 2, Next: 60}}})
	wantNext(t, l, "t", 2, idA, 51)
}

// HARD-CASES 7: no entry of ours is over 1 MiB, whatever it carries.
func TestNoEntryIsLarge(t *testing.T) {
	var bases Bases
	var refuse Refuse
	var discard Discard
	for i := range 200_000 {
		bases.Bases = append(bases.Bases, record.Base{Topic: "a-topic", Partition: int32(i), Next: 1 << 40})
		refuse.Refusals = append(refuse.Refusals, RefusedRecord{Refusal: record.Refusal{RecordID: record.RecordID{Topic: "a-topic", Offset: int64(i)}, Reason: "a reason"}, Indexes: []uint64{7}})
		discard.IDs = append(discard.IDs, uint64(i)<<30)
	}
	joined := struct {
		bases   []record.Base
		refused []RefusedRecord
		ids     []uint64
		data    []byte
	}{}
	block := bytes.Repeat([]byte("0123456789abcdef"), record.MaxEntry/4)
	entries := slices.Concat(EncodeAll(bases), EncodeAll(refuse), EncodeAll(discard), Copies(5, block), EncodeAll(Cut{}))
	for _, b := range entries {
		if len(b) > record.MaxEntry {
			t.Errorf("an entry has %d bytes", len(b))
		}
		e, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		switch e := e.(type) {
		case Bases:
			joined.bases = append(joined.bases, e.Bases...)
		case Refuse:
			joined.refused = append(joined.refused, e.Refusals...)
		case Discard:
			joined.ids = append(joined.ids, e.IDs...)
		case Copy:
			joined.data = append(joined.data, e.Data...)
		}
	}
	if !reflect.DeepEqual(bases.Bases, joined.bases) || !reflect.DeepEqual(refuse.Refusals, joined.refused) ||
		!slices.Equal(discard.IDs, joined.ids) || !bytes.Equal(block, joined.data) {
		t.Error("the entries do not carry what the one carried")
	}
}

// HARD-CASES 8: a clock that goes back does not reorder batches.
func TestClockThatGoesBack(t *testing.T) {
	l := newLog(t)
	for i, at := range []int64{at0, at0 - 3_600_000, at0 + 1, at0 + 50} {
		p, _ := l.s.Position("t", 0)
		l.ok(small(t, from("t", 0, p.Next, 1)))
		l.ok(Cut{Term: 1, Seq: uint64(i) + 1, At: at})
	}
	l.restart()
	var got []int64
	for _, b := range l.s.Batches(1, 10) {
		got = append(got, b.CutAt)
	}
	diff(t, []int64{at0, at0 + 1, at0 + 2, at0 + 50}, got)
	if l.s.Clock() != at0+50 {
		t.Errorf("clock %d", l.s.Clock())
	}
}

// HARD-CASES 9: numbers start at 1, dones come in order.
func TestSequenceNumbers(t *testing.T) {
	l := newLog(t)
	if l.s.LastSeq() != 0 || l.s.FirstSeq() != 1 || l.s.Open().Seq != 1 {
		t.Errorf("before the first cut: last %d, first %d", l.s.LastSeq(), l.s.FirstSeq())
	}
	withSink(l)
	if l.s.LastSeq() != 2 || l.s.FirstSeq() != 1 {
		t.Errorf("after two cuts: last %d, first %d", l.s.LastSeq(), l.s.FirstSeq())
	}
	l.no(Done{Term: 1, Done: record.Done{Sink: "a", Seq: 2}}, "needs batch 1 next")
}

// HARD-CASES 23: the log has an identity of its own, for ever.
func TestLogIDIsMadeOnce(t *testing.T) {
	l := newLog(t)
	other := theForm()
	other.LogID = LogID{9}
	l.no(other, "formed already")
	l.restart()
	f, _ := l.s.Identity()
	if f.LogID != (LogID{1, 2, 3}) || f.LogID.String() != "010203"+strings.Repeat("0", 26) {
		t.Errorf("log id %s", f.LogID)
	}
}

// HARD-CASES 24: a refusal that was recorded before a crash is found by the
// next attempt, of the next leader too.
func TestRefusalOutlivesTheAttempt(t *testing.T) {
	l := newLog(t)
	withSink(l)
	l.ok(Refuse{Sink: "a", Term: 1, Seq: 1, Refusals: []RefusedRecord{refusal(101)}, At: at0})
	l.restart()
	l.ok(Begin{Term: 2, Node: "n2", At: at0})
	diff(t, []record.RecordID{{Topic: "t", Offset: 101}}, l.s.Excluded("a", 1))
	l.ok(Refuse{Sink: "a", Term: 2, Seq: 1, Refusals: []RefusedRecord{refusal(101)}, At: at0})
	if p := l.s.Parked(); len(p) != 1 {
		t.Errorf("parked %v", p)
	}
}

// parkedBlock gives the records of the block of a parked record.
func parkedBlock(l *log, id uint64) []string {
	l.t.Helper()
	ref, ok := l.s.ParkedRecord(id)
	if !ok {
		l.t.Fatalf("parked record %d is not there", id)
	}
	b, err := ref.Block(l.fetch)
	if err != nil {
		l.t.Fatal(err)
	}
	return records(l.t, b)
}

// HARD-CASES 24: the floor stands below a parked record until it was copied,
// and then below its copy.
func TestParkedRecordHoldsTheFloor(t *testing.T) {
	l := newLog(t)
	withSink(l)
	l.ok(Refuse{Sink: "a", Term: 1, Seq: 1, Refusals: []RefusedRecord{refusal(101)}, At: at0})
	l.done("a")
	l.done("a")
	l.no(Release{Term: 1, Seq: 2, At: at0}, "batch 1 holds parked records that were not copied")
	diff(t, listed("t", 0, 100, 3), parkedBlock(l, 1))
	if refs := l.s.ToCopy(2, 0, 10); len(refs) != 1 || refs[0].ID != 1 {
		t.Errorf("to copy: %v", refs)
	}

	at := l.ok(Copies(1, small(t, from("t", 0, 101, 1)))[0])
	diff(t, listed("t", 0, 101, 1), parkedBlock(l, 1))
	l.ok(Release{Term: 1, Seq: 2, At: at0})
	l.restart()
	if got := l.s.Floor(); got != at || l.s.FirstSeq() != 3 {
		t.Errorf("floor %d, want %d", got, at)
	}
	diff(t, listed("t", 0, 101, 1), parkedBlock(l, 1))

	// It may move on again, and goes for good when it is discarded.
	if refs := l.s.ToCopy(2, 0, 10); len(refs) != 0 {
		t.Errorf("to copy: %v", refs)
	}
	if refs := l.s.ToCopy(2, at+1, 10); len(refs) != 1 || refs[0].ID != 1 {
		t.Errorf("to copy again: %v", refs)
	}
	again := l.ok(Copies(1, small(t, from("t", 0, 101, 1)))[0])
	if got := l.s.Floor(); got != again {
		t.Errorf("floor %d, want %d", got, again)
	}
	diff(t, listed("t", 0, 101, 1), parkedBlock(l, 1))
	l.ok(Discard{IDs: []uint64{1}, At: at0})
	if got := l.s.Floor(); got != l.index+1 {
		t.Errorf("floor %d, want %d", got, l.index+1)
	}
}

// HARD-CASES 24 and 7: a large record is parked by the parts that hold it, and
// copied in pieces.
func TestLargeParkedRecord(t *testing.T) {
	l := newLog(t)
	l.ok(SinkAdd{Name: "a", At: at0})
	var indexes []uint64
	for _, p := range large(t, from("t", 0, 100, 1)) {
		indexes = append(indexes, l.ok(p))
	}
	l.cut()
	r := refusal(100)
	r.Indexes = indexes
	l.ok(Refuse{Sink: "a", Term: 1, Seq: 1, Refusals: []RefusedRecord{r}, At: at0})
	diff(t, listed("t", 0, 100, 1), parkedBlock(l, 1))

	copies := Copies(1, block(t, record.MaxEntry*5/2, from("t", 0, 100, 1)))
	l.ok(copies[0])
	l.no(copies[2], "part 2 of 3 of parked record 1 does not follow")
	l.ok(Begin{Term: 2, Node: "n2", At: at0}) // the next leader copies anew
	l.no(copies[1], "part 1 of 3 of parked record 1 does not follow")
	first := l.ok(copies[0])
	l.restart()
	l.ok(copies[1])
	diff(t, listed("t", 0, 100, 1), parkedBlock(l, 1)) // from its old place still
	l.ok(copies[2])
	diff(t, listed("t", 0, 100, 1), parkedBlock(l, 1))
	l.done("a")
	l.ok(Release{Term: 2, Seq: 1, At: at0})
	if got := l.s.Floor(); got != first {
		t.Errorf("floor %d, want %d", got, first)
	}
	l.no(Copies(2, []byte{1})[0], "parked record 2 is not there")
	l.no(Copy{ID: 1, Part: 1, Parts: 1, Data: []byte{1}}, "cannot be")
}

// HARD-CASES 28: a sink that left the configuration still holds the floor, and
// gives it up only from the batch that the operator named.
func TestRemovedSinkGivesUpTheFloor(t *testing.T) {
	l := newLog(t)
	withSink(l)
	l.no(Release{Term: 1, Seq: 2, At: at0}, `sink "a" still needs batch 1`)
	l.no(SinkRemove{Name: "a", GivesUpFrom: 2, At: at0}, "needs batch 1 next, not 2")
	l.ok(SinkRemove{Name: "a", GivesUpFrom: 1, At: at0})
	l.ok(Release{Term: 1, Seq: 2, At: at0})
	if got := l.s.Floor(); got != l.index+1 {
		t.Errorf("floor %d, want %d", got, l.index+1)
	}
}

// HARD-CASES 28: what an operator skips is a gap like any other.
func TestSkippedGapIsRecorded(t *testing.T) {
	l := newLog(t)
	l.ok(Advance{At: at0, Advance: record.Advance{Topic: "t", TopicID: idA, Base: 100, Next: 400, Reason: record.AdvanceSkipped}})
	diff(t, []record.Gap{{Topic: "t", TopicID: idA, First: 100, Last: 399, Reason: record.AdvanceSkipped, At: at0}}, l.s.Gaps())
}
