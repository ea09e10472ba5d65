package torture

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"forebay/internal/record"
	"forebay/replicate"
	"forebay/wal"
)

const (
	topic, sink = "a", "files"
	// laneWait bounds what a lane must do.
	laneWait = 20 * time.Second
)

var topicID = record.TopicID{1}

// laneClaim is one thing that must hold of a lane from now on; those of before still do.
type laneClaim struct {
	Phase string `json:",omitempty"`
	// Next is the least next offset, MostNext the most that was proposed.
	Next, MostNext int64 `json:",omitempty"`
	// Cut is the least newest batch, MostCut the most.
	Cut, MostCut uint64 `json:",omitempty"`
	// Done is the least newest batch that the sink has, MostDone the most.
	Done, MostDone uint64 `json:",omitempty"`
	// Term is one in which the lane was led; every later one is greater, for it fences sinks.
	Term uint64 `json:",omitempty"`
	// Sum is what batch Cut reads like.
	Sum string `json:",omitempty"`
	// Sinks tells that the sink is there, Bases that the topic has a base.
	Sinks, Bases bool `json:",omitempty"`
}

// laneConfig says how the lane in dir is opened; retention is how long delivered batches stay.
func openLane(dir string, retention time.Duration, lost func(error)) (*wal.Log, *replicate.Lane, error) {
	newest, err := replicate.NewestSnapshot(dir)
	if err != nil {
		return nil, nil, err
	}
	log, err := wal.Open(wal.Config{
		Dir: dir, SegmentSize: 16 << 10, LockWait: -1, Logger: quiet(), OnFailure: lost,
		SnapshotIndex: newest.Index, SnapshotTerm: newest.Term, SnapshotTaken: newest.TakenHere,
	})
	if err != nil {
		return nil, nil, err
	}
	lane, err := replicate.Open(replicate.Config{
		NodeID: "n1", Gateway: "torture", Lanes: 1, Dir: dir, Store: log, Lost: lost, Logger: quiet(),
		SnapshotEntries: 20, Retention: retention, ElectionTimeout: 10 * time.Millisecond, ParkedMaxBytes: 1 << 20,
	})
	if err != nil {
		return nil, nil, errors.Join(err, log.Close())
	}
	return log, lane, nil
}

// leading is a lane that leads.
type leading struct {
	*replicate.Lane
	log  *wal.Log
	term *replicate.Term
	ctx  context.Context
	end  func() error
}

// lead opens a lane and waits until it leads.
func lead(dir string, retention time.Duration) (*leading, error) {
	failed := make(chan error, 1)
	log, lane, err := openLane(dir, retention, func(err error) {
		select {
		case failed <- err:
		default:
		}
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), laneWait)
	terms, led := make(chan *replicate.Term, 1), make(chan error, 1)
	go func() {
		led <- lane.Lead(ctx, func(ctx context.Context, t *replicate.Term) {
			select {
			case terms <- t:
			default:
			}
			<-ctx.Done()
		})
	}()
	l := &leading{Lane: lane, log: log, ctx: ctx}
	l.end = func() error {
		cancel()
		_ = <-led // the lane's end is the caller's wish, or was told already
		return errors.Join(lane.Close(context.Background()), log.Close())
	}
	select {
	case l.term = <-terms:
		return l, nil
	case err = <-failed:
	case err = <-led:
		led <- nil
	case <-ctx.Done():
		err = errors.New("no lead")
	}
	return nil, errors.Join(fmt.Errorf("leading: %w", err), l.end())
}

// value is that of a record: it tells its offset.
func value(offset int64, size int) []byte {
	v := make([]byte, size)
	rng := rand.New(rand.NewPCG(uint64(offset), 5))
	for i := 0; i+8 <= size; i += 8 {
		binary.LittleEndian.PutUint64(v[i:], rng.Uint64())
	}
	return v
}

// sizeOf is how large the value of a record is: one in a while travels in parts.
func sizeOf(offset int64) int {
	switch {
	case offset%97 == 96:
		return 1_300_000
	case offset%7 == 0:
		return 2000
	}
	return 40
}

// block seals records from base to next.
func block(base, next int64) ([]byte, error) {
	var run record.Run
	run.Reset(topic, topicID, 0, base)
	for o := base; o < next; o++ {
		r := record.Record{Topic: topic, Offset: o, Timestamp: 1, Key: []byte("k"), Value: value(o, sizeOf(o))}
		if err := run.Append(&r); err != nil {
			return nil, err
		}
	}
	return record.NewSealer(record.None).Seal([]*record.Run{&run}), nil
}

// digest adds a record to the sum of a batch.
func digest(h hash.Hash, r *record.Record) {
	fmt.Fprintf(h, "%s/%d/%d/%d/", r.Topic, r.Partition, r.Offset, len(r.Value))
	h.Write(r.Value)
}

// sumOf reads a batch.
func sumOf(l *leading, seq uint64, each func(*record.Record) error) (string, error) {
	h := sha256.New()
	err := l.ReadBatch(l.ctx, seq, nil, func(r *record.Record) error {
		digest(h, r)
		return each(r)
	})
	return hex.EncodeToString(h.Sum(nil)[:8]), err
}

// laneWork is a child that works on a lane.
type laneWork struct {
	dir         string
	l           *leading
	said        *claims
	rng         *rand.Rand
	next        int64
	cuts, dones uint64
}

// laneWorkload forms a lane, takes blocks in, cuts and delivers batches, until it has taken and
// pruned snapshots, released batches and let go of the log; closed and opened now and then.
func laneWorkload(dir string, seed uint64, said *claims) error {
	w := &laneWork{dir: filepath.Join(dir, "lane"), said: said, rng: rand.New(rand.NewPCG(seed, 3))}
	if err := os.Mkdir(w.dir, 0o750); err != nil {
		return err
	}
	w.next = 97*w.rng.Int64N(3) + w.rng.Int64N(80) // so that large records come sooner or later
	base := w.next
	if err := w.opened(); err != nil {
		return err
	}
	if err := w.l.term.SetBases(w.l.ctx, []record.Base{{Topic: topic, TopicID: topicID, Next: base}}); err != nil {
		return err
	}
	if err := w.l.term.AddSink(w.l.ctx, sink, "d", false); err != nil {
		return err
	}
	if err := said.say(laneClaim{Phase: "at rest", Bases: true, Sinks: true, Next: base, MostNext: base}); err != nil {
		return err
	}
	for range 60 {
		if err := w.step(); err != nil {
			return err
		}
	}
	return w.l.end()
}

func (w *laneWork) opened() (err error) {
	if err := w.said.say(laneClaim{Phase: "open"}); err != nil {
		return err
	}
	if w.l, err = lead(w.dir, time.Millisecond); err != nil {
		return err
	}
	return w.said.say(laneClaim{Phase: "at rest", Term: w.l.term.Number()})
}

func (w *laneWork) step() error {
	switch n := w.rng.IntN(12); {
	case n < 6:
		return w.append()
	case n < 8:
		return w.cut()
	case n < 10:
		return w.deliver()
	case n < 11:
		return w.housekeeping()
	}
	if err := w.said.say(laneClaim{Phase: "close"}); err != nil {
		return err
	}
	if err := w.l.end(); err != nil {
		return err
	}
	return w.opened()
}

func (w *laneWork) append() error {
	to := w.next + 1 + w.rng.Int64N(12)
	b, err := block(w.next, to)
	if err != nil {
		return err
	}
	if err := w.said.say(laneClaim{Phase: "append", MostNext: to}); err != nil {
		return err
	}
	settled := make(chan error, 1)
	if err := w.l.term.Append(w.l.ctx, b, func(err error) { settled <- err }); err != nil {
		return err
	}
	if err := <-settled; err != nil {
		return err
	}
	w.next = to
	return w.said.say(laneClaim{Phase: "at rest", Next: to})
}

func (w *laneWork) cut() error {
	if w.l.Open().Records == 0 {
		return w.append()
	}
	if err := w.said.say(laneClaim{Phase: "cut", MostCut: w.cuts + 1}); err != nil {
		return err
	}
	if err := w.l.term.Cut(w.l.ctx, w.cuts+1, time.Now().UnixMilli()); err != nil {
		return err
	}
	w.cuts++
	sum, err := sumOf(w.l, w.cuts, func(*record.Record) error { return nil })
	return errors.Join(err, w.said.say(laneClaim{Phase: "at rest", Cut: w.cuts, Sum: sum}))
}

func (w *laneWork) deliver() error {
	if w.dones == w.cuts {
		return w.cut()
	}
	if err := w.said.say(laneClaim{Phase: "done", MostDone: w.dones + 1}); err != nil {
		return err
	}
	if err := w.l.term.Done(w.l.ctx, record.Done{Sink: sink, Seq: w.dones + 1, Attempts: 1}); err != nil {
		return err
	}
	w.dones++
	return w.said.say(laneClaim{Phase: "at rest", Done: w.dones})
}

// housekeeping waits for a release, a snapshot, and the removal of what they let go.
func (w *laneWork) housekeeping() error {
	if err := w.said.say(laneClaim{Phase: "snapshot and release"}); err != nil {
		return err
	}
	for w.l.Released() < w.dones {
		changed := w.l.Changed()
		if w.l.Released() >= w.dones {
			break
		}
		select {
		case <-changed:
		case <-w.l.ctx.Done():
			return fmt.Errorf("batch %d is not released: %w", w.dones, w.l.ctx.Err())
		}
	}
	// A look of the housekeeping is enough for whatever is due now.
	select {
	case <-time.After(600 * time.Millisecond):
	case <-w.l.ctx.Done():
		return w.l.ctx.Err()
	}
	return w.said.say(laneClaim{Phase: "at rest"})
}
