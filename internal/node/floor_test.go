package node

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"forebay/internal/record"
	"forebay/replicate"
	"forebay/wal"
)

// room is a lane on a real log, of which a test watches what it takes of the disk.
type room struct {
	t    *testing.T
	dir  string
	log  *wal.Log
	lane *replicate.Lane
	term *replicate.Term
	next int64
}

const (
	roomSegment  = 16 << 10
	roomSnapshot = 100 << 10
	roomBlock    = 8 << 10
)

func newRoom(t *testing.T, edit func(*replicate.Config)) *room {
	t.Helper()
	r := &room{t: t, dir: t.TempDir()}
	var err error
	r.log, err = wal.Open(wal.Config{Dir: r.dir, SegmentSize: roomSegment, RingBytes: -1, Logger: slog.New(slog.DiscardHandler), OnFailure: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	cfg := replicate.Config{
		NodeID: "n", Gateway: "g", Lanes: 1, Dir: r.dir, Store: r.log, SnapshotBytes: roomSnapshot, Retention: time.Millisecond,
		Lost: func(err error) { t.Error(err) },
	}
	edit(&cfg)
	if r.lane, err = replicate.Open(cfg); err != nil {
		t.Fatal(err)
	}
	terms, ctx, end, led := make(chan *replicate.Term), context.Context(nil), context.CancelFunc(nil), make(chan error, 1)
	ctx, end = context.WithCancel(context.Background())
	go func() {
		led <- r.lane.Lead(ctx, func(ctx context.Context, term *replicate.Term) { terms <- term; <-ctx.Done() })
	}()
	t.Cleanup(func() {
		end()
		_ = <-led
		if err := r.lane.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if err := r.log.Close(); err != nil {
			t.Error(err)
		}
	})
	select {
	case r.term = <-terms:
	case err := <-led:
		t.Fatal(err)
	}
	if err := r.term.SetBases(t.Context(), []record.Base{{Topic: "a", TopicID: record.TopicID{1}}}); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *room) sink(name string) {
	r.t.Helper()
	if err := r.term.AddSink(r.t.Context(), name, "somewhere", false); err != nil {
		r.t.Fatal(err)
	}
}

// batch takes in a block of about roomBlock bytes and cuts it.
func (r *room) batch() {
	r.t.Helper()
	var run record.Run
	run.Reset("a", record.TopicID{1}, 0, r.next)
	if err := run.Append(&record.Record{Offset: r.next, Value: make([]byte, roomBlock)}); err != nil {
		r.t.Fatal(err)
	}
	settled := make(chan error, 1)
	if err := r.term.Append(r.t.Context(), record.NewSealer(record.None).Seal([]*record.Run{&run}), func(err error) { settled <- err }); err != nil {
		r.t.Fatal(err)
	}
	if err := <-settled; err != nil {
		r.t.Fatal(err)
	}
	r.next++
	if err := r.term.Cut(r.t.Context(), r.term.LastSeq()+1, time.Now().UnixMilli()); err != nil {
		r.t.Fatal(err)
	}
}

// deliver reads the next n batches of a sink, which must be there whole, and reports them done.
func (r *room) deliver(sink string, n int) {
	r.t.Helper()
	for range n {
		s, _ := r.term.Sink(sink)
		records := 0
		err := r.term.Read(r.t.Context(), s.Cursor, nil, func(rec *record.Record) error {
			records++
			if rec.Offset != int64(s.Cursor)-1 || len(rec.Value) != roomBlock {
				return fmt.Errorf("it holds offset %d with %d bytes", rec.Offset, len(rec.Value))
			}
			return nil
		})
		if err != nil || records != 1 {
			r.t.Fatalf("batch %d, which %s still needs: %d records, %v", s.Cursor, sink, records, err)
		}
		if err := r.term.Done(r.t.Context(), record.Done{Sink: sink, Seq: s.Cursor, Attempts: 1}); err != nil {
			r.t.Fatal(err)
		}
	}
}

// onDisk is what the segments take, asked of the file system.
func (r *room) onDisk() int64 {
	r.t.Helper()
	names, err := filepath.Glob(filepath.Join(r.dir, "log", "*"))
	if err != nil {
		r.t.Fatal(err)
	}
	var sum int64
	for _, name := range names {
		if info, err := os.Stat(name); err == nil { // else it has just gone
			sum += info.Size()
		}
	}
	return sum
}

// within waits until the disk holds no more than the kept batches and the bound.
func (r *room) within(what string, bound int64) {
	r.t.Helper()
	const batch = roomBlock + 1<<10 // its cut, dones and frames included
	needed := int64(r.term.LastSeq()+1-r.term.FirstSeq()) * batch
	await(r.t, what, func() bool { return r.onDisk() <= needed+bound }, func() any {
		return fmt.Sprintf("%d bytes on disk, %d needed, bound %d more; floor %d, the log is %+v", r.onDisk(), needed, bound, r.term.Floor(), r.log.Stats())
	})
}

// TestSpaceComesBackWithinASegmentAndASnapshotInterval of what the floor allows, in a
// long run with a fast sink and a slow one, which lags by up to hundreds of batches;
// and nothing that a sink still needs ever goes.
func TestSpaceComesBackWithinASegmentAndASnapshotInterval(t *testing.T) {
	const lag, steps = 400, 4
	const bound = roomSegment + roomSnapshot + roomSnapshot/4 // an interval ends with the entry that reaches it
	r := newRoom(t, func(*replicate.Config) {})
	r.sink("fast")
	r.sink("slow")
	for round := range 2 {
		for range lag {
			r.batch()
			r.deliver("fast", 1)
		}
		if held := r.onDisk(); held < lag*roomBlock {
			t.Fatalf("round %d: the log has %d bytes, and the slow sink needs %d", round, held, lag*roomBlock)
		}
		for step := range steps {
			r.deliver("slow", lag/steps)
			slow, _ := r.term.Sink("slow")
			await(t, "what both sinks have to be released", func() bool { return r.term.FirstSeq() == slow.Cursor }, func() any { return r.term.FirstSeq() })
			r.within(fmt.Sprintf("round %d, step %d: space to come back", round, step), bound)
		}
	}
	t.Logf("%d batches, %d bytes on disk at the end", r.next, r.onDisk())
}
