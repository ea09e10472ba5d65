package state

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"forebay/internal/record"
)

// list writes out n records of a partition.
func listed(topic string, partition int32, first int64, n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("%s/%d@%d", topic, partition, first+int64(i)))
	}
	return out
}

func wantBatch(t *testing.T, l *log, seq uint64, want ...[]string) {
	t.Helper()
	for range 2 {
		diff(t, slices.Concat(want...), l.read(seq))
		l.restart()
	}
}

func TestLargeBlockTravelsInParts(t *testing.T) {
	l := newLog(t)
	parts := large(t, from("t", 0, 100, 2))
	l.ok(small(t, from("u", 0, 0, 1)))
	l.ok(parts[0])
	wantNext(t, l, "t", 0, idA, 100)
	l.ok(small(t, from("u", 0, 1, 1))) // other entries may lie between
	l.ok(parts[1])
	l.restart()
	l.ok(SinkAdd{Name: "a", At: at0})
	last := l.ok(parts[2])
	wantNext(t, l, "t", 0, idA, 102)
	l.cut()
	b, _ := l.s.Batch(1)
	if b.Records != 4 || b.FirstIndex != 4 || b.LastIndex != last {
		t.Errorf("batch %+v", b)
	}
	wantBatch(t, l, 1, listed("u", 0, 0, 2), listed("t", 0, 100, 2))
}

func TestPartThatDoesNotFit(t *testing.T) {
	parts := large(t, from("t", 0, 100, 2))
	other := large(t, from("t", 0, 100, 4))
	open := func(l *log) { l.ok(parts[0]) }
	runSteps(t, []step{
		{name: "first", entry: entry(parts[0]), check: func(t *testing.T, l *log) { wantNext(t, l, "t", 0, idA, 100) }},
		{name: "first at another base", entry: func(*log) any { return large(t, from("t", 0, 99, 2))[0] }, words: "goes on at 100, not at 99"},
		{name: "second without the first", entry: entry(parts[1]), words: "part 1 of 3", check: nil},
		{name: "third without the second", setup: open, entry: entry(parts[2]), words: "came when part 1 was due"},
		{name: "second twice", setup: func(l *log) { open(l); l.ok(parts[1]) }, entry: entry(parts[1]), words: "came when part 2 was due"},
		{name: "of another block", setup: open, entry: entry(other[1]), words: "of another block"},
		{name: "first again starts anew", setup: func(l *log) { open(l); l.ok(parts[1]) }, entry: entry(parts[0]), check: func(t *testing.T, l *log) {
			l.no(parts[2], "came when part 1 was due")
		}},
	})
}

func TestUnfinishedPartsAreVoid(t *testing.T) {
	parts := large(t, from("t", 0, 100, 2))
	small := func(c claim) any { return small(t, c) }
	for name, tc := range map[string]struct {
		by   any
		void bool
	}{
		"by a new leader":                   {Begin{Term: 2, Node: "n2", At: at0}, true},
		"by an advance":                     {Advance{At: at0, Advance: record.Advance{Topic: "t", TopicID: idA, Base: 100, Next: 101, Reason: record.AdvanceControl}}, true},
		"by a topic change":                 {TopicChange{TopicChange: record.TopicChange{Topic: "t", Old: idA, New: idB}, At: at0}, true},
		"by a block of the partition":       {small(from("t", 0, 100, 1)), true},
		"by another large block":            {large(t, from("t", 0, 100, 4))[0], true},
		"not by a block of another":         {small(from("t", 1, 0, 1)), false},
		"not by an advance of another":      {Advance{At: at0, Advance: record.Advance{Topic: "t", TopicID: idA, Partition: 1, Base: 0, Next: 1, Reason: 1}}, false},
		"not by a topic change of another":  {TopicChange{TopicChange: record.TopicChange{Topic: "u", Old: idA, New: idB}, At: at0}, false},
		"not by another large one's part 0": {large(t, from("u", 0, 0, 4))[0], false},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			l.ok(parts[0])
			l.ok(parts[1])
			l.ok(tc.by)
			l.restart()
			if tc.void {
				l.no(parts[2], "part 2 of 3")
				return
			}
			l.ok(parts[2])
			wantNext(t, l, "t", 0, idA, 102)
		})
	}
}

// TestRefusedEntryVoidsNothing: what is refused must not give up the parts of
// another block.
func TestRefusedEntryVoidsNothing(t *testing.T) {
	l := newLog(t)
	parts := large(t, from("t", 0, 100, 2))
	l.ok(parts[0])
	l.no(small(t, from("t", 0, 99, 1)), "goes on at 100")
	l.no(Begin{Term: 1, Node: "n1", At: at0}, "does not follow")
	l.no(Advance{Advance: record.Advance{Topic: "t", TopicID: idA, Base: 99, Next: 101, Reason: 1}}, "goes on at 100")
	l.ok(parts[1])
	l.ok(parts[2])
	l.cut()
	wantBatch(t, l, 1, listed("t", 0, 100, 2))
}

// TestPartsAcrossACut: a large block belongs to the batch of its last part,
// wherever the others lie; the batches between leave them out.
func TestPartsAcrossACut(t *testing.T) {
	l := newLog(t)
	parts := large(t, from("t", 0, 100, 2))
	l.ok(small(t, from("u", 0, 0, 1)))
	p0 := l.ok(parts[0])
	l.ok(small(t, from("u", 0, 1, 1)))
	l.cut()
	p1 := l.ok(parts[1])
	l.ok(small(t, from("u", 0, 2, 1)))
	l.cut()
	l.restart()
	p2 := l.ok(parts[2])
	l.ok(small(t, from("u", 0, 3, 1)))
	l.cut()

	wantBatch(t, l, 1, listed("u", 0, 0, 2))
	wantBatch(t, l, 2, listed("u", 0, 2, 1))
	wantBatch(t, l, 3, listed("t", 0, 100, 2), listed("u", 0, 3, 1))
	one, _ := l.s.Layout(1)
	diff(t, []uint64{p0}, one.Skip)
	three, _ := l.s.Layout(3)
	diff(t, Layout{FirstIndex: p2, LastIndex: p2 + 1, Early: []uint64{p0, p1}}, three)
	// The floor stays below the early parts when the batches before are released.
	l.ok(Release{Term: 1, Seq: 2, At: at0})
	if got := l.s.Floor(); got != p0 {
		t.Errorf("floor %d, want %d", got, p0)
	}
	wantBatch(t, l, 3, listed("t", 0, 100, 2), listed("u", 0, 3, 1))
}

// TestEarlyPartBeforeAnOlderBatch: the first index of the oldest kept batch is
// not the floor when a later batch has a part before it.
func TestEarlyPartBeforeAnOlderBatch(t *testing.T) {
	l := newLog(t)
	parts := large(t, from("t", 0, 100, 2))
	p0 := l.ok(parts[0])
	l.ok(small(t, from("u", 0, 0, 1)))
	l.cut()
	l.ok(parts[1])
	l.ok(parts[2])
	l.cut()
	for range 2 {
		if got := l.s.Floor(); got != p0 {
			t.Errorf("floor %d, want %d", got, p0)
		}
		l.restart()
	}
	wantBatch(t, l, 2, listed("t", 0, 100, 2))
}

// TestCompletedBlockHoldsTheFloor: the early parts of a block that the open
// batch holds are needed when all batches before it are gone.
func TestCompletedBlockHoldsTheFloor(t *testing.T) {
	l := newLog(t)
	parts := large(t, from("t", 0, 100, 2))
	l.ok(small(t, from("u", 0, 0, 1)))
	p0 := l.ok(parts[0])
	l.cut()
	l.ok(parts[1])
	l.ok(parts[2])
	l.ok(Release{Term: 1, Seq: 1, At: at0})
	for range 2 {
		if got := l.s.Floor(); got != p0 {
			t.Errorf("floor %d, want %d", got, p0)
		}
		l.restart()
	}
	l.cut()
	wantBatch(t, l, 2, listed("t", 0, 100, 2))
}

// TestLayoutIsNoLargerThanItMustBe: nothing outside the first and the last
// accepted entry is named, and all is in order.
func TestLayoutIsNoLargerThanItMustBe(t *testing.T) {
	l := newLog(t)
	a, b := large(t, from("t", 0, 100, 2)), large(t, from("t", 1, 0, 2))
	a0 := l.ok(a[0])
	l.no(small(t, from("t", 0, 99, 1)), "goes on at 100")
	b0 := l.ok(b[0])
	first := l.ok(small(t, from("u", 0, 0, 1)))
	a1 := l.ok(a[1])
	l.cut()
	l.ok(b[1])
	l.ok(b[2])
	last := l.ok(a[2])
	l.cut()
	one, _ := l.s.Layout(1)
	diff(t, Layout{FirstIndex: first, LastIndex: first}, one)
	two, _ := l.s.Layout(2)
	diff(t, Layout{FirstIndex: last - 2, LastIndex: last, Early: []uint64{a0, b0, a1}}, two)
	wantBatch(t, l, 2, listed("t", 1, 0, 2), listed("t", 0, 100, 2))
}

// TestVoidPartsOfAnEarlierBatch: parts that turn out void after the cut are
// left out of both batches.
func TestVoidPartsOfAnEarlierBatch(t *testing.T) {
	l := newLog(t)
	parts := large(t, from("t", 0, 100, 2))
	l.ok(small(t, from("u", 0, 0, 1)))
	l.ok(parts[0])
	l.ok(small(t, from("u", 0, 1, 1)))
	l.cut()
	l.ok(small(t, from("u", 0, 2, 1)))
	l.ok(parts[1])
	l.ok(Begin{Term: 2, Node: "n2", At: at0})
	l.no(parts[2], "follows none")
	for _, p := range parts {
		l.ok(p)
	}
	l.cut()
	wantBatch(t, l, 1, listed("u", 0, 0, 2))
	wantBatch(t, l, 2, listed("u", 0, 2, 1), listed("t", 0, 100, 2))
}

func TestTwoLargeBlocksAtOnce(t *testing.T) {
	l := newLog(t)
	a, b := large(t, from("t", 0, 100, 2)), large(t, from("t", 1, 0, 2))
	for _, e := range [][]byte{a[0], b[0], b[1], a[1], b[2], a[2]} {
		l.ok(e)
	}
	l.cut()
	wantBatch(t, l, 1, listed("t", 1, 0, 2), listed("t", 0, 100, 2))
}

func TestUnfinishedPartsHoldTheFloor(t *testing.T) {
	l := newLog(t)
	if got := l.s.Floor(); got != l.index+1 {
		t.Errorf("floor %d of a lane without records at %d", got, l.index)
	}
	p0 := l.ok(large(t, from("t", 0, 100, 2))[0])
	l.ok(Set{"k", "v"})
	if got := l.s.Floor(); got != p0 {
		t.Errorf("floor %d, want %d", got, p0)
	}
	l.ok(Begin{Term: 2, Node: "n2", At: at0})
	if got := l.s.Floor(); got != l.index+1 {
		t.Errorf("floor %d after the parts were given up, at %d", got, l.index)
	}
}

// TestRefusalsBeforeABatchAreNotKept: a lane to which nothing but refused
// blocks come does not grow.
func TestRefusalsBeforeABatchAreNotKept(t *testing.T) {
	l := newLog(t)
	stale := small(t, from("t", 0, 90, 1))
	for range 10 {
		l.no(stale, "goes on at 100")
	}
	p0 := l.ok(large(t, from("t", 0, 100, 2))[0])
	l.no(stale, "goes on at 100")
	l.ok(Begin{Term: 2, Node: "n2", At: at0})
	if len(l.s.open.skip) != 0 {
		t.Errorf("indexes %v are kept, parts began at %d", l.s.open.skip, p0)
	}
	l.ok(small(t, from("t", 0, 100, 1)))
	no := l.no(stale, "goes on at 101")
	l.ok(small(t, from("t", 0, 101, 1)))
	l.no(stale, "goes on at 102")
	l.cut()
	layout, _ := l.s.Layout(1)
	diff(t, []uint64{no}, layout.Skip)
	wantBatch(t, l, 1, listed("t", 0, 100, 2))
}

func TestLayoutThatTheLogContradicts(t *testing.T) {
	l := newLog(t)
	parts := large(t, from("t", 0, 100, 2))
	for _, p := range parts {
		l.ok(p)
	}
	l.cut()
	layout, _ := l.s.Layout(1)
	layout.Skip = []uint64{layout.LastIndex}
	none := func([]uint64, []byte) error { return nil }
	if err := layout.Blocks(l.fetch, none); !errors.Is(err, ErrLayout) {
		t.Errorf("a block without its last part: %v", err)
	}
	layout.Skip = []uint64{layout.FirstIndex}
	if err := layout.Blocks(l.fetch, none); !errors.Is(err, ErrLayout) {
		t.Errorf("a block without its first part: %v", err)
	}
	layout.Skip = nil
	stop := errors.New("stop")
	if err := layout.Blocks(l.fetch, func(i []uint64, _ []byte) error {
		diff(t, []uint64{4, 5, 6}, i)
		return stop
	}); !errors.Is(err, stop) {
		t.Errorf("the error of fn came back as %v", err)
	}
	if err := layout.Blocks(func(uint64) ([]byte, error) { return nil, stop }, none); !errors.Is(err, stop) {
		t.Errorf("the error of fetch came back as %v", err)
	}
}

func TestParkedReferenceThatTheLogContradicts(t *testing.T) {
	l := newLog(t)
	parts := large(t, from("t", 0, 100, 1))
	whole := l.ok(small(t, from("u", 0, 0, 1)))
	var at []uint64
	for _, p := range parts {
		at = append(at, l.ok(p))
	}
	copies := Copies(1, []byte("a block"))
	l.entries[50], l.entries[51] = copies[0], Encode(Copy{ID: 1, Parts: 1, Checksum: 1, Data: []byte("a block")})
	l.entries[52] = []byte{tagCopy, 9}
	for name, ref := range map[string]ParkedRef{
		"no entries":              {},
		"an entry that is not":    {Indexes: []uint64{40}},
		"another kind":            {Indexes: []uint64{1}},
		"a part short":            {Indexes: at[:2]},
		"a part too many":         {Indexes: append(slices.Clone(at), at[0])},
		"parts in another order":  {Indexes: []uint64{at[1], at[0], at[2]}},
		"a block among parts":     {Indexes: []uint64{whole, at[0]}},
		"no copy":                 {Copied: true, Indexes: []uint64{whole}},
		"copy of another":         {Copied: true, Indexes: []uint64{50}, Parked: record.Parked{ID: 2}},
		"copy by a wrong part":    {Copied: true, Indexes: []uint64{50, 50}, Parked: record.Parked{ID: 1}},
		"copy of other bytes":     {Copied: true, Indexes: []uint64{51}, Parked: record.Parked{ID: 1}},
		"copy of another version": {Copied: true, Indexes: []uint64{52}, Parked: record.Parked{ID: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			fetch := func(index uint64) ([]byte, error) { return l.entries[index], nil }
			if b, err := ref.Block(fetch); !errors.Is(err, ErrLayout) {
				t.Errorf("%d bytes, error %v", len(b), err)
			}
		})
	}
}
