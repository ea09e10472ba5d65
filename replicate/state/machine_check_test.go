package state

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"forebay/internal/record"
)

func same(rt *rapid.T, what string, want, got any) {
	if d := cmp.Diff(want, got); d != "" {
		rt.Fatalf("%s (-model +state)\n%s", what, d)
	}
}

// check compares the state with the model, and with its twin.
func (x *machine) check(rt *rapid.T) {
	s, m := x.log.s, x.m
	if !bytes.Equal(s.Marshal(nil), x.twin.Marshal(nil)) {
		rt.Fatal("a state that was restarted differs from one that was not")
	}
	positions := map[place]record.Position{}
	for _, p := range s.Positions() {
		positions[place{p.Topic, p.Partition}] = p.Position
	}
	if len(positions) != len(m.positions) {
		rt.Fatalf("%d positions, want %d", len(positions), len(m.positions))
	}
	for p, want := range m.positions {
		same(rt, fmt.Sprint("position of ", p), want, positions[p])
	}
	same(rt, "open batch", record.OpenBatch{Seq: m.lastSeq + 1, Records: int64(len(m.open)), Bytes: sum(m.open), LastCutAt: m.clockCut}, s.Open())
	same(rt, "last, first and term", []uint64{m.lastSeq, m.released + 1, m.term}, []uint64{s.LastSeq(), s.FirstSeq(), s.Term()})
	same(rt, "gaps", m.gaps, s.Gaps())
	x.checkSinks(rt)
	x.checkParked(rt)
	for _, b := range s.Batches(1, 1000) {
		x.checkBatch(rt, b)
	}
	if s.LastSeq() > s.Released() {
		x.readBatch(rt, rapid.Uint64Range(s.FirstSeq(), s.LastSeq()).Draw(rt, "read"))
	}
	if floor := s.Floor(); floor < x.floor || floor > s.AppliedIndex()+1 {
		rt.Fatalf("the floor went from %d to %d, at %d", x.floor, floor, s.AppliedIndex())
	}
	x.floor = s.Floor()
	x.checkFloor(rt)
}

func sum(recs []rec) (n int64) {
	for _, r := range recs {
		n += r.bytes
	}
	return n
}

func (x *machine) checkSinks(rt *rapid.T) {
	sinks := x.log.s.Sinks()
	if len(sinks) != len(x.m.sinks) {
		rt.Fatalf("sinks %v", sinks)
	}
	for _, k := range sinks {
		want := x.m.sinks[k.Name]
		same(rt, "sink", record.SinkState{Name: k.Name, Cursor: want.cursor, Paused: want.paused, Parked: want.parked, Dropped: want.dropped}, k)
		excluded := slices.SortedFunc(slices.Values(want.excluded), func(a, b record.RecordID) int {
			return strings.Compare(fmt.Sprintf("%s %03d %09d", a.Topic, a.Partition, a.Offset), fmt.Sprintf("%s %03d %09d", b.Topic, b.Partition, b.Offset))
		})
		same(rt, "excluded of "+k.Name, excluded, x.log.s.Excluded(k.Name, k.Cursor))
		for seq := x.log.s.FirstSeq(); seq <= x.log.s.LastSeq(); seq++ {
			done := slices.ContainsFunc(x.log.s.Dones(seq), func(d record.Done) bool { return d.Sink == k.Name })
			if done && seq >= k.Cursor {
				rt.Fatalf("batch %d is done for sink %s, which needs %d", seq, k.Name, k.Cursor)
			}
		}
	}
}

func (x *machine) checkParked(rt *rapid.T) {
	refs := x.log.s.Parked()
	if len(refs) != len(x.m.parked) {
		rt.Fatalf("parked %v", refs)
	}
	var size int64
	for _, r := range refs {
		want := x.m.parked[r.ID]
		if want == nil || want.record != r.Record || r.Copied != (want.seq == 0) {
			rt.Fatalf("parked %v, want %v", r, want)
		}
		size += r.Bytes + ParkedOverhead
	}
	if size != x.log.s.ParkedBytes() {
		rt.Fatalf("parked records take %d bytes, not %d", size, x.log.s.ParkedBytes())
	}
	if len(refs) == 0 {
		return
	}
	r := refs[rapid.IntRange(0, len(refs)-1).Draw(rt, "parked record")]
	b, err := r.Block(x.log.fetch)
	if err != nil {
		rt.Fatalf("parked record %v: %v", r, err)
	}
	if name := fmt.Sprintf("%s/%d@%d", r.Record.Topic, r.Record.Partition, r.Record.Offset); !slices.Contains(records(x.tb, b), name) {
		rt.Fatalf("the block of parked record %v does not hold it", r)
	}
}

func (x *machine) checkBatch(rt *rapid.T, b record.BatchInfo) {
	recs := x.m.batches[b.ID.Seq]
	if b.Records != int64(len(recs)) || b.Bytes != sum(recs) || b.CutAt != x.m.cutAt[b.ID.Seq] {
		rt.Fatalf("batch %+v, want %d records of %d bytes", b, len(recs), sum(recs))
	}
	for _, r := range recs {
		if !slices.ContainsFunc(b.Ranges, func(g record.Range) bool {
			return g.Topic == r.id.Topic && g.Partition == r.id.Partition && g.First <= r.id.Offset && r.id.Offset <= g.Last
		}) {
			rt.Fatalf("record %v of batch %d is in none of its ranges %v", r.id, b.ID.Seq, b.Ranges)
		}
	}
	for _, g := range b.Ranges {
		for _, end := range []int64{g.First, g.Last} {
			id := record.RecordID{Topic: g.Topic, Partition: g.Partition, Offset: end}
			if !slices.ContainsFunc(recs, func(r rec) bool { return r.id == id }) {
				rt.Fatalf("range %v of batch %d ends at no record of it", g, b.ID.Seq)
			}
		}
	}
}

// readBatch reads a batch from what is left of the log: it must be what the
// model had at the cut, in the same order, however often and whenever.
func (x *machine) readBatch(rt *rapid.T, seq uint64) {
	layout, ok := x.log.s.Layout(seq)
	if !ok {
		rt.Fatalf("batch %d is gone", seq)
	}
	var want, got []string
	for _, r := range x.m.batches[seq] {
		want = append(want, fmt.Sprintf("%s/%d@%d in %d", r.id.Topic, r.id.Partition, r.id.Offset, r.indexes))
	}
	err := layout.Blocks(x.log.fetch, func(indexes []uint64, block []byte) error {
		for _, name := range records(x.tb, block) {
			got = append(got, fmt.Sprintf("%s in %d", name, indexes))
		}
		return nil
	})
	if err != nil {
		rt.Fatalf("reading batch %d: %v", seq, err)
	}
	same(rt, fmt.Sprintf("records of batch %d", seq), want, got)
}

// checkFloor: nothing that is still needed lies below the floor.
func (x *machine) checkFloor(rt *rapid.T) {
	need := func(what string, recs []rec) {
		for _, r := range recs {
			if r.indexes[0] < x.floor {
				rt.Fatalf("the floor is %d, but %s has a record in %d", x.floor, what, r.indexes)
			}
		}
	}
	need("the open batch", x.m.open)
	for seq, recs := range x.m.batches {
		need(fmt.Sprint("batch ", seq), recs)
	}
	for _, b := range x.m.pending {
		if b.have[0] < x.floor {
			rt.Fatalf("the floor is %d, but a large block began at %d", x.floor, b.have[0])
		}
	}
}
