package state

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"forebay/internal/record"
)

// machine drives a state, a second one that is never restarted, and the model
// through the same log. Proposals may be sent late, twice and out of order, as
// those of leaders that come and go are.
type machine struct {
	tb        testing.TB
	log       log
	twin      *State
	m         *model
	pool      []*proposal
	clock     int64
	floor     uint64
	snapshots [][]byte
	large     int // how many large blocks were made
}

// TestModel holds invariants 2 to 6 of ARCHITECTURE.md at every step of random runs.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		x := &machine{tb: t, twin: New(), m: newModel(), clock: at0}
		x.log = log{t: t, s: New(), entries: map[uint64][]byte{}}
		x.log.ok(theForm())
		x.twin.Apply(1, x.log.entries[1])
		x.send(rt, &proposal{entry: Begin{Term: 1, Node: "n1", At: at0}})
		x.send(rt, &proposal{entry: Bases{At: at0, Bases: []record.Base{
			{Topic: "t", TopicID: idA, Partition: 0, Next: 100}, {Topic: "t", TopicID: idA, Partition: 1}, {Topic: "u", TopicID: idA},
		}}})
		x.propose(rt, SinkAdd{Name: "a", At: x.clock})
		rt.Repeat(map[string]func(*rapid.T){
			"block": x.block, "blockAgain": x.block, "large": x.largeBlock, "late": x.late, "later": x.late,
			"begin": x.begin, "bases": x.bases, "advance": x.advance, "topic": x.topic,
			"cut": x.cut, "cutAgain": x.cut, "sink": x.sink, "done": x.done, "doneAgain": x.done,
			"refuse": x.refuse, "copy": x.copy, "discard": x.discard, "release": x.release, "void": x.voidBatches,
			"restart": func(*rapid.T) { x.log.restart() },
			"snapshot": func(*rapid.T) {
				x.snapshots = append(x.snapshots, x.log.s.Marshal(nil))
			},
			"follower": x.follower,
			"raft":     func(*rapid.T) { x.log.index++ }, // an index that is not ours
			"":         x.check,
		})
		for seq := range x.m.batches {
			x.readBatch(rt, seq)
		}
	})
}

// send applies a proposal everywhere and compares what came of it.
func (x *machine) send(rt *rapid.T, p *proposal) {
	b := p.bytes
	if b == nil {
		b = Encode(p.entry)
	}
	out := x.log.apply(b)
	twin := x.twin.Apply(x.log.index, b)
	_, detail := Describe(b)
	rt.Logf("%d: %s: %v", x.log.index, detail, out.Err)
	if fmt.Sprint(twin) != fmt.Sprint(out) {
		rt.Fatalf("outcomes differ: %v and %v", out, twin)
	}
	_, isCut := p.entry.(Cut)
	expected := out.Err == nil || errors.Is(out.Err, record.ErrRefused) || isCut && errors.Is(out.Err, record.ErrNothingToCut)
	if !expected {
		rt.Fatalf("outcome %v", out.Err)
	}
	if accepted := x.m.apply(x.log.index, p); accepted != (out.Err == nil) {
		rt.Fatalf("the model says accepted=%t, the outcome is %v", accepted, out.Err)
	}
}

// propose sends an entry now, or keeps it for later, or both.
func (x *machine) propose(rt *rapid.T, e any) { x.proposeAll(rt, &proposal{entry: e}) }

func (x *machine) proposeAll(rt *rapid.T, ps ...*proposal) {
	how := rapid.IntRange(0, 9).Draw(rt, "how")
	if how < 3 {
		x.pool = append(x.pool, ps...)
	}
	if how > 0 {
		for _, p := range ps {
			x.send(rt, p)
		}
	}
}

// late sends what was kept: what comes first in the pool comes soonest.
func (x *machine) late(rt *rapid.T) {
	if len(x.pool) == 0 {
		rt.Skip("nothing was kept")
	}
	i := rapid.IntRange(0, len(x.pool)-1).Draw(rt, "which")
	p := x.pool[i]
	if rapid.Bool().Draw(rt, "last") {
		x.pool = slices.Delete(x.pool, i, i+1)
	}
	x.send(rt, p)
}

// now is the clock of a leader, which jumps.
func (x *machine) now(rt *rapid.T) int64 {
	x.clock += rapid.Int64Range(-5000, 10000).Draw(rt, "clock")
	return x.clock
}

// term is the current one, or rarely another.
func (x *machine) term(rt *rapid.T) uint64 {
	if rapid.IntRange(0, 9).Draw(rt, "old term") == 0 {
		return x.m.term - 1
	}
	return x.m.term
}

func (x *machine) place(rt *rapid.T) place {
	all := slices.SortedFunc(maps.Keys(x.m.positions), func(a, b place) int {
		if a.topic != b.topic {
			return int(a.topic[0]) - int(b.topic[0])
		}
		return int(a.partition - b.partition)
	})
	return rapid.SampledFrom(all).Draw(rt, "partition")
}

// claim is one that fits, or rarely not.
func (x *machine) claim(rt *rapid.T) claim {
	at := x.place(rt)
	pos := x.m.positions[at]
	c := claim{topic: at.topic, id: pos.TopicID, partition: at.partition, base: pos.Next}
	switch rapid.IntRange(0, 19).Draw(rt, "wrong") {
	case 0:
		c.base++
	case 1:
		c.base = max(0, c.base-2)
	case 2:
		c.id[1]++
	}
	next := c.base
	for range rapid.IntRange(1, 4).Draw(rt, "records") {
		next += rapid.Int64Range(0, 2).Draw(rt, "hole")
		c.offsets = append(c.offsets, next)
		next++
	}
	return c
}

func (x *machine) block(rt *rapid.T) {
	claims := []claim{x.claim(rt)}
	if c := x.claim(rt); c.topic != claims[0].topic || c.partition != claims[0].partition {
		claims = append(claims, c)
	}
	x.proposeAll(rt, &proposal{claims: claims, size: 4, bytes: block(x.tb, 4, claims...)})
}

func (x *machine) largeBlock(rt *rapid.T) {
	if x.large++; x.large > 4 {
		rt.Skip("enough of them")
	}
	c := x.claim(rt)
	c.offsets = c.offsets[:1]
	claims := []claim{c}
	size := record.MaxEntry + record.MaxEntry/8
	if d := x.claim(rt); d.topic != c.topic || d.partition != c.partition {
		d.offsets = d.offsets[:1]
		claims = append(claims, d)
	}
	parts := record.Split(block(x.tb, size, claims...))
	ps := make([]*proposal, len(parts))
	for i, b := range parts {
		ps[i] = &proposal{claims: claims, size: size, part: i, parts: len(parts), bytes: b}
	}
	// The first part goes at once; the others may be overtaken.
	x.send(rt, ps[0])
	if rapid.Bool().Draw(rt, "cut between") {
		x.cut(rt)
	}
	x.proposeAll(rt, ps[1:]...)
	if rapid.Bool().Draw(rt, "again") {
		x.pool = append(x.pool, ps...)
	}
}

func (x *machine) begin(rt *rapid.T) {
	x.propose(rt, Begin{Term: x.m.term + rapid.Uint64Range(0, 2).Draw(rt, "term"), Node: "n2", At: x.now(rt)})
}

func (x *machine) bases(rt *rapid.T) {
	b := record.Base{Topic: rapid.SampledFrom([]string{"t", "v"}).Draw(rt, "topic"), Partition: rapid.Int32Range(0, 3).Draw(rt, "partition"), Next: rapid.Int64Range(0, 50).Draw(rt, "next")}
	if b.TopicID = idA; rapid.Bool().Draw(rt, "right id") {
		if id, ok := x.m.topicID(b.Topic); ok {
			b.TopicID = id
		}
	}
	x.propose(rt, Bases{Bases: []record.Base{b}, At: x.now(rt)})
}

func (x *machine) advance(rt *rapid.T) {
	c := x.claim(rt)
	a := record.Advance{Topic: c.topic, TopicID: c.id, Partition: c.partition, Base: c.base, Reason: record.AdvanceReason(rapid.IntRange(1, 4).Draw(rt, "reason"))}
	by := rapid.Int64Range(1, 5).Draw(rt, "by")
	if a.Next = a.Base + by; a.Reason == record.AdvanceTruncated {
		if a.Next = a.Base - by; a.Next < 0 {
			rt.Skip("nothing to take back")
		}
	}
	x.propose(rt, Advance{Advance: a, At: x.now(rt)})
}

func (x *machine) topic(rt *rapid.T) {
	if rapid.IntRange(0, 3).Draw(rt, "seldom") > 0 {
		rt.Skip("this time not")
	}
	at := x.place(rt)
	old := x.m.positions[at].TopicID
	next := old
	next[2]++
	x.propose(rt, TopicChange{TopicChange: record.TopicChange{Topic: at.topic, Old: old, New: next}, At: x.now(rt)})
}

func (x *machine) cut(rt *rapid.T) {
	x.propose(rt, Cut{Term: x.term(rt), Seq: x.m.lastSeq + 1, At: x.now(rt)})
}

func (x *machine) sinkName(rt *rapid.T) string {
	return rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "sink")
}

func (x *machine) sink(rt *rapid.T) {
	name := x.sinkName(rt)
	var from uint64
	if k := x.m.sinks[name]; k != nil {
		from = k.cursor
	}
	x.propose(rt, rapid.SampledFrom([]any{
		SinkAdd{Name: name, At: at0},
		SinkAdd{Name: name, Newest: true, At: at0},
		SinkRemove{Name: name, GivesUpFrom: from, At: at0},
		SinkPause{Name: name, Paused: true, At: at0},
		SinkPause{Name: name, At: at0},
	}).Draw(rt, "what"))
}

// atCursor gives a sink and the batch that it needs.
func (x *machine) atCursor(rt *rapid.T) (string, uint64) {
	name := x.sinkName(rt)
	if k := x.m.sinks[name]; k != nil {
		return name, k.cursor
	}
	return name, 1
}

func (x *machine) done(rt *rapid.T) {
	name, seq := x.atCursor(rt)
	x.propose(rt, Done{Term: x.term(rt), Done: record.Done{Sink: name, Seq: seq, Attempts: 1, StartedAt: at0, DoneAt: x.now(rt)}})
}

func (x *machine) refuse(rt *rapid.T) {
	name, seq := x.atCursor(rt)
	batch := x.m.batches[seq]
	if len(batch) == 0 {
		rt.Skip("no batch there")
	}
	e := Refuse{Sink: name, Term: x.term(rt), Seq: seq, Drop: rapid.Bool().Draw(rt, "drop"), At: x.now(rt)}
	for range rapid.IntRange(1, 3).Draw(rt, "records") {
		r := rapid.SampledFrom(batch).Draw(rt, "record")
		e.Refusals = append(e.Refusals, RefusedRecord{Refusal: record.Refusal{RecordID: r.id, Reason: "why"}, Indexes: r.indexes, Bytes: r.bytes})
	}
	x.propose(rt, e)
}

// parkedID gives a record that is parked, or one that may have been.
func (x *machine) parkedID(rt *rapid.T) uint64 {
	if ids := slices.Sorted(maps.Keys(x.m.parked)); len(ids) > 0 {
		return rapid.SampledFrom(ids).Draw(rt, "parked")
	}
	return x.m.lastID + 1<<20
}

func (x *machine) copy(rt *rapid.T) {
	id := x.parkedID(rt)
	var b []byte
	if p := x.m.parked[id]; p != nil {
		b = block(x.tb, rapid.IntRange(1, 2).Draw(rt, "size"), claim{p.record.Topic, idA, p.record.Partition, 0, []int64{p.record.Offset}})
	} else {
		b = []byte("gone")
	}
	half, sum := len(b)/2, castagnoli(b)
	ps := []*proposal{{entry: Copy{ID: id, Parts: 1, Checksum: sum, Data: b}}}
	if rapid.Bool().Draw(rt, "in two") {
		ps = []*proposal{{entry: Copy{ID: id, Parts: 2, Checksum: sum, Data: b[:half]}}, {entry: Copy{ID: id, Part: 1, Parts: 2, Checksum: sum, Data: b[half:]}}}
	}
	x.proposeAll(rt, ps...)
}

func (x *machine) discard(rt *rapid.T) {
	x.propose(rt, Discard{IDs: []uint64{x.parkedID(rt)}, At: x.now(rt)})
}

func (x *machine) release(rt *rapid.T) {
	x.propose(rt, Release{Term: x.term(rt), Seq: x.m.lastSeq - min(x.m.lastSeq, rapid.Uint64Range(0, 3).Draw(rt, "keep")), At: x.now(rt)})
}

func (x *machine) voidBatches(rt *rapid.T) {
	x.propose(rt, Void{Term: x.term(rt), Seq: x.m.lastSeq + rapid.Uint64Range(0, 3).Draw(rt, "void"), At: x.now(rt)})
}

// follower takes a snapshot at or below the floor and the log from there on.
func (x *machine) follower(rt *rapid.T) {
	for _, b := range slices.Backward(x.snapshots) {
		s, err := Unmarshal(b)
		if err != nil {
			rt.Fatalf("reading a snapshot: %v", err)
		}
		if s.AppliedIndex() > x.log.s.Floor() {
			continue
		}
		for i := s.AppliedIndex() + 1; i <= x.log.index; i++ {
			if e := x.log.entries[i]; e != nil {
				s.Apply(i, e)
			}
		}
		if string(s.Marshal(nil)) != string(x.log.s.Marshal(nil)) {
			rt.Fatal("the follower's state differs")
		}
		return
	}
	rt.Skip("no snapshot is old enough")
}
