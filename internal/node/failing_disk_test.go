package node

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"forebay/internal/record"
	"forebay/replicate"
	"forebay/wal"
)

// lives is one lane over many openings, and what was learnt of it in all of them.
type lives struct {
	t   *testing.T
	dir string

	mu       sync.Mutex
	rng      *rand.Rand
	accepted map[record.RecordID]bool
	batches  map[uint64][]record.RecordID
	digests  map[uint64]uint64
}

func (v *lives) intn(n int) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.rng.IntN(n)
}

// TestALaneWhoseDiskFailsAgainAndAgain: under blocks, large ones too, refusals, cuts,
// deliveries and releases the log's disk fails at a sync, and the lane is opened
// again. What was settled is there once, and every batch reads as it read before.
func TestALaneWhoseDiskFailsAgainAndAgain(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	v := &lives{
		t: t, dir: t.TempDir(), rng: rand.New(rand.NewPCG(seed, 0)), accepted: map[record.RecordID]bool{},
		batches: map[uint64][]record.RecordID{}, digests: map[uint64]uint64{},
	}
	for range 8 {
		v.live(1+v.intn(150), v.receive, v.cut, v.deliver)
	}
	v.live(1<<30, v.finish)
	seen, next := map[record.RecordID]bool{}, map[int32]int64{}
	for seq := uint64(1); v.batches[seq] != nil; seq++ {
		for _, id := range v.batches[seq] {
			if id.Offset < next[id.Partition] {
				t.Fatalf("batch %d: %v after offset %d", seq, id, next[id.Partition]-1)
			}
			seen[id], next[id.Partition] = true, id.Offset+1
		}
	}
	for id := range v.accepted {
		if !seen[id] {
			t.Fatalf("%v was settled and is in no batch", id)
		}
	}
	if len(v.accepted) == 0 || len(v.batches) < 2 {
		t.Errorf("%d records and %d batches prove nothing", len(v.accepted), len(v.batches))
	}
}

// live opens the lane, runs parts together until the given sync fails (or a part ends
// the term), and closes it.
func (v *lives) live(syncs int, parts ...func(context.Context, *replicate.Term)) {
	v.t.Helper()
	newest, err := replicate.NewestSnapshot(v.dir)
	if err != nil {
		v.t.Fatal(err)
	}
	layer, left := &files{}, atomic.Int64{}
	left.Store(int64(syncs))
	ctx, end := context.WithCancel(context.Background())
	defer end()
	log, err := wal.Open(wal.Config{
		Dir: v.dir, SegmentSize: 16 << 10, RingBytes: 64 << 10, SnapshotIndex: newest.Index, SnapshotTerm: newest.Term,
		SnapshotTaken: newest.TakenHere, Files: layer, Logger: slog.New(slog.DiscardHandler), OnFailure: func(error) { end() },
	})
	if err != nil {
		v.t.Fatal(err)
	}
	l, err := replicate.Open(replicate.Config{
		NodeID: "n", Gateway: "g", Lanes: 1, Dir: v.dir, Store: log, SnapshotBytes: 100 << 10, SnapshotEntries: 60,
		InFlightBytes: 200 << 10, Retention: 50 * time.Millisecond, Lost: func(err error) { v.t.Error(err) },
	})
	if err != nil {
		v.t.Fatal(err)
	}
	layer.onSync(func() error {
		if left.Add(-1) < 0 {
			return errDisk
		}
		return nil
	})
	err = l.Lead(ctx, func(ctx context.Context, term *replicate.Term) {
		if err := v.prepare(ctx, term); err != nil {
			return // the disk failed early
		}
		var work sync.WaitGroup
		for _, part := range parts {
			work.Go(func() { part(ctx, term) })
		}
		work.Wait()
		end()
	})
	if !errors.Is(err, context.Canceled) {
		v.t.Errorf("Lead: %v", err)
	}
	closing, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = l.Close(closing) // after a failure what closing says is not news
	_ = log.Close()
}

func (v *lives) prepare(ctx context.Context, term *replicate.Term) error {
	for id := range v.accepted {
		if pos, _ := term.Position(id.Topic, id.Partition); pos.Next <= id.Offset {
			v.t.Fatalf("%v was settled, and the log stands at %d", id, pos.Next)
		}
	}
	if _, ok := term.Sink("s"); !ok {
		if err := term.AddSink(ctx, "s", "somewhere", false); err != nil {
			return err
		}
	}
	return term.SetBases(ctx, []record.Base{{Topic: "a", TopicID: record.TopicID{1}}, {Topic: "a", TopicID: record.TopicID{1}, Partition: 1}})
}

// receive is a receiver without Kafka: sessions that pipeline blocks, some of which
// skip an offset and are refused with all that follows them.
func (v *lives) receive(ctx context.Context, term *replicate.Term) {
	for ctx.Err() == nil {
		var refused atomic.Bool
		var flying sync.WaitGroup
		next := [2]int64{}
		for p := range next {
			pos, _ := term.Position("a", int32(p))
			next[p] = pos.Next
		}
		for ctx.Err() == nil && !refused.Load() {
			p := v.intn(2)
			if v.intn(100) == 0 {
				next[p]++
			}
			block, ids := v.block(int32(p), next[p])
			flying.Add(1)
			err := term.Append(ctx, block, func(err error) {
				defer flying.Done()
				if err != nil {
					refused.Store(true)
					return
				}
				v.mu.Lock()
				defer v.mu.Unlock()
				for _, id := range ids {
					v.accepted[id] = true
				}
			})
			if err != nil {
				flying.Done()
				break
			}
			next[p] = ids[len(ids)-1].Offset + 1
		}
		flying.Wait()
	}
}

// block makes one of a few records, now and then of more than an entry holds.
func (v *lives) block(p int32, base int64) ([]byte, []record.RecordID) {
	var run record.Run
	run.Reset("a", record.TopicID{1}, p, base)
	var ids []record.RecordID
	for i := range int64(1 + v.intn(5)) {
		value := make([]byte, 8+v.intn(3000))
		if v.intn(100) == 0 {
			value = make([]byte, record.MaxEntry+v.intn(record.MaxEntry))
		}
		binary.LittleEndian.PutUint64(value, uint64(base+i))
		if err := run.Append(&record.Record{Offset: base + i, Value: value}); err != nil {
			v.t.Error(err)
		}
		ids = append(ids, record.RecordID{Topic: "a", Partition: p, Offset: base + i})
	}
	return record.NewSealer(record.None).Seal([]*record.Run{&run}), ids
}

func (v *lives) cut(ctx context.Context, term *replicate.Term) {
	for ctx.Err() == nil {
		changed := term.Changed()
		if term.Open().Records > int64(v.intn(60)) {
			_ = term.Cut(ctx, term.LastSeq()+1, time.Now().UnixMilli()) // an empty batch, or the end of the term
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func (v *lives) deliver(ctx context.Context, term *replicate.Term) {
	for ctx.Err() == nil {
		changed := term.Changed()
		sink, _ := term.Sink("s")
		if sink.Cursor <= term.LastSeq() {
			if v.deliverOne(ctx, term, sink.Cursor) != nil {
				return
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// finish delivers what is left, with nothing coming in.
func (v *lives) finish(ctx context.Context, term *replicate.Term) {
	if err := term.Cut(ctx, term.LastSeq()+1, time.Now().UnixMilli()); err != nil && !errors.Is(err, record.ErrNothingToCut) {
		v.t.Error(err)
	}
	for sink, _ := term.Sink("s"); sink.Cursor <= term.LastSeq(); sink, _ = term.Sink("s") {
		if err := v.deliverOne(ctx, term, sink.Cursor); err != nil {
			v.t.Error(err)
			return
		}
	}
}

// deliverOne reads a batch, compares it with earlier readings, and reports it done.
func (v *lives) deliverOne(ctx context.Context, term *replicate.Term, seq uint64) error {
	sum := fnv.New64a()
	var ids []record.RecordID
	err := term.Read(ctx, seq, nil, func(r *record.Record) error {
		if len(r.Value) < 8 || int64(binary.LittleEndian.Uint64(r.Value)) != r.Offset {
			v.t.Errorf("batch %d: the record %d/%d has another's value", seq, r.Partition, r.Offset)
		}
		_, _ = sum.Write(r.Value)
		ids = append(ids, record.RecordID{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset})
		return nil
	})
	if err != nil {
		if ctx.Err() == nil {
			v.t.Errorf("reading batch %d: %v", seq, err)
		}
		return err
	}
	v.mu.Lock()
	if was, ok := v.digests[seq]; ok && was != sum.Sum64() {
		v.t.Errorf("batch %d reads otherwise than before", seq)
	}
	v.digests[seq], v.batches[seq] = sum.Sum64(), ids
	v.mu.Unlock()
	return term.Done(ctx, record.Done{Sink: "s", Seq: seq, Attempts: 1, StartedAt: 1, DoneAt: time.Now().UnixMilli()})
}
