package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/record"
	"forebay/replicate"
	"forebay/wal"
)

// joint is a lane over the real log, joined as a node joins them. Its segments and
// snapshots are small.
type joint struct {
	*replicate.Lane
	t    testing.TB
	dir  string
	log  *wal.Log
	term *replicate.Term
	end  func()
	next int64
}

const jointSegment = 32 << 10

func openJoint(t testing.TB, dir string, tune func(*replicate.Config)) *joint {
	t.Helper()
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	newest, err := replicate.NewestSnapshot(dir)
	if err != nil {
		t.Fatal(err)
	}
	log, err := wal.Open(wal.Config{
		Dir: dir, SegmentSize: jointSegment, RingBytes: 16 << 10, Logger: discard(), LockWait: -1,
		SnapshotIndex: newest.Index, SnapshotTerm: newest.Term, SnapshotTaken: newest.TakenHere,
	})
	if err != nil {
		t.Fatal(err)
	}
	c := replicate.Config{
		NodeID: "n1", Gateway: "forebay", Lanes: 1, Dir: dir, Store: log, Retention: time.Hour,
		SnapshotEntries: 40, ParkedMaxBytes: 1 << 20, Logger: discard(),
		Lost: func(err error) { t.Errorf("the node must end: %v", err) },
	}
	if tune != nil {
		tune(&c)
	}
	lane, err := replicate.Open(c)
	if err != nil {
		t.Fatal(errors.Join(err, log.Close()))
	}
	j := &joint{Lane: lane, t: t, dir: dir, log: log}
	j.lead()
	if at, ok := lane.Position("clicks", 0); ok {
		j.next = at.Next
	} else if err := j.term.SetBases(t.Context(), []record.Base{{Topic: "clicks"}}); err != nil {
		t.Fatal(err)
	}
	return j
}

// lead takes the lane's first term, which lasts until end.
func (j *joint) lead() {
	ctx, cancel := context.WithCancel(context.Background())
	terms, led := make(chan *replicate.Term), make(chan struct{})
	go func() {
		defer close(led)
		err := j.Lead(ctx, func(ctx context.Context, t *replicate.Term) {
			select {
			case terms <- t:
				<-ctx.Done()
			case <-ctx.Done():
			}
		})
		if !errors.Is(err, context.Canceled) {
			j.t.Errorf("leading ended with %v", err)
		}
	}()
	ended := false
	j.end = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		<-led
		if err := errors.Join(j.Close(context.Background()), j.log.Close()); err != nil {
			j.t.Error(err)
		}
	}
	j.t.Cleanup(j.end)
	select {
	case j.term = <-terms:
	case <-time.After(patience):
		j.t.Fatal("no term came")
	}
}

// append appends n records of about size bytes as one block.
func (j *joint) append(n, size int) {
	j.t.Helper()
	var run record.Run
	run.Reset("clicks", record.TopicID{}, 0, j.next)
	for range n {
		value := strings.Repeat(fmt.Sprintf("%d ", j.next), size/2+1)[:size]
		if err := run.Append(&record.Record{Offset: j.next, Timestamp: j.next, Value: []byte(value)}); err != nil {
			j.t.Fatal(err)
		}
		j.next++
	}
	settled := make(chan error, 1)
	block := record.NewSealer(record.None).Seal([]*record.Run{&run})
	if err := j.term.Append(j.t.Context(), block, func(err error) { settled <- err }); err != nil {
		j.t.Fatal(err)
	}
	if err := <-settled; err != nil {
		j.t.Fatal(err)
	}
}

func (j *joint) cut() uint64 {
	j.t.Helper()
	seq := j.LastSeq() + 1
	if err := j.term.Cut(j.t.Context(), seq, time.Now().UnixMilli()); err != nil {
		j.t.Fatal(err)
	}
	return seq
}

func (j *joint) addSink(name string) {
	j.t.Helper()
	if err := j.term.AddSink(j.t.Context(), name, "somewhere", false); err != nil {
		j.t.Fatal(err)
	}
}

func (j *joint) done(sink string, seq uint64) {
	j.t.Helper()
	if err := j.term.Done(j.t.Context(), record.Done{Sink: sink, Seq: seq, Attempts: 1, StartedAt: 1, DoneAt: 2}); err != nil {
		j.t.Fatal(err)
	}
}

// everything is all that a lane says of its batches, their records included.
type everything struct {
	Positions any
	Open      record.OpenBatch
	Sinks     []record.SinkState
	Infos     []record.BatchInfo
	Dones     map[uint64][]record.Done
	Records   map[uint64][]string
}

func (j *joint) everything() everything {
	j.t.Helper()
	e := everything{
		Positions: j.Positions(), Open: j.Open(), Sinks: j.Sinks(), Infos: j.Batches(j.FirstSeq(), 10_000),
		Dones: map[uint64][]record.Done{}, Records: map[uint64][]string{},
	}
	for _, info := range e.Infos {
		seq := info.ID.Seq
		e.Dones[seq] = j.Dones(seq)
		err := j.ReadBatch(j.t.Context(), seq, nil, func(r *record.Record) error {
			e.Records[seq] = append(e.Records[seq], fmt.Sprintf("%d %s", r.Offset, r.Value))
			return nil
		})
		if err != nil {
			j.t.Fatalf("batch %d: %v", seq, err)
		}
	}
	return e
}

// copyOf is what a kill at this moment would leave, while nothing is appended. What
// the log removes meanwhile makes the copy begin again.
func (j *joint) copyOf() string {
	j.t.Helper()
	for range 100 {
		dir := j.t.TempDir() + "/lane"
		err := os.CopyFS(dir, os.DirFS(j.dir))
		if err == nil {
			return dir
		}
		if !errors.Is(err, fs.ErrNotExist) {
			j.t.Fatal(err)
		}
	}
	j.t.Fatal("the log never rests")
	return ""
}

// TestTheSameBatchesAfterAKill: over the real log, with blocks in parts, several
// snapshots, cold reads, and an open batch.
func TestTheSameBatchesAfterAKill(t *testing.T) {
	j := openJoint(t, t.TempDir()+"/lane", nil)
	j.addSink("files")
	for i := range 60 {
		j.append(1+i%7, 900)
		if i == 30 {
			j.append(3, 700_000) // in parts
		}
		if i%3 == 0 {
			j.done("files", j.cut())
		}
	}
	j.append(2, 100)
	await(t, "a snapshot", func() bool { return j.Status().Snapshot > 0 })
	want := j.everything()
	if want.Open.Records == 0 || len(want.Infos) != 20 {
		t.Fatalf("%d batches, open %+v", len(want.Infos), want.Open)
	}
	killed := openJoint(t, j.copyOf(), nil)
	if diff := cmp.Diff(want, killed.everything()); diff != "" {
		t.Errorf("after a kill (-before +after):\n%s", diff)
	}
	// It goes on where it was, and comes to the same as the one that was not killed.
	for _, l := range []*joint{j, killed} {
		l.append(5, 50)
		l.done("files", l.cut())
	}
	if diff := cmp.Diff(j.everything().Records, killed.everything().Records); diff != "" {
		t.Errorf("after going on (-not killed +killed):\n%s", diff)
	}
	want = killed.everything()
	killed.end()
	again := openJoint(t, killed.dir, nil)
	if diff := cmp.Diff(want, again.everything()); diff != "" {
		t.Errorf("after a close (-before +after):\n%s", diff)
	}
}

// TestDeliveredBatchesLetSegmentsGo, and those that one sink still needs do not:
// the floor of the state, the newest snapshot below it, and the log's own deletion.
func TestDeliveredBatchesLetSegmentsGo(t *testing.T) {
	dir := t.TempDir() + "/lane"
	j := openJoint(t, dir, func(c *replicate.Config) { c.Retention = time.Millisecond })
	j.addSink("fast")
	j.addSink("slow")
	fill := func(l *joint) {
		t.Helper()
		for range 60 {
			l.append(4, 4000)
			l.done("fast", l.cut())
		}
	}
	fill(j)
	await(t, "a snapshot", func() bool { return j.Status().Snapshot > 40 })
	if first, err := j.log.FirstIndex(); err != nil || first != 1 || j.FirstSeq() != 1 {
		t.Fatalf("the log begins at %d and batch %d (%v) while a sink has nothing", first, j.FirstSeq(), err)
	}
	full := j.log.Stats()
	for seq := j.Sinks()[1].Cursor; seq <= j.LastSeq(); seq++ {
		j.done("slow", seq)
	}
	await(t, "the batches to be released", func() bool { return j.FirstSeq() == j.LastSeq()+1 })
	// Entries go up to the newest snapshot below the floor: more entries bring one.
	for range 50 {
		if err := j.term.Set(t.Context(), "key", "value"); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "segments to go", func() bool {
		now := j.log.Stats()
		return now.Segments < full.Segments/4 && now.Bytes < full.Bytes/4
	}, func() any { return j.log.Stats() })
	if err := j.ReadBatch(t.Context(), 1, nil, nil); !errors.Is(err, record.ErrReleased) {
		t.Errorf("a released batch: %v", err)
	}
	s := j.Status()
	if s.First == 1 || s.First > s.Floor || s.Snapshot < s.First-1 {
		t.Errorf("the log begins at %d, the floor is %d, the newest snapshot %d", s.First, s.Floor, s.Snapshot)
	}
	// What is left is a whole log.
	want := j.everything()
	killed := openJoint(t, j.copyOf(), nil)
	if diff := cmp.Diff(want, killed.everything()); diff != "" {
		t.Errorf("after a kill (-before +after):\n%s", diff)
	}
	fill(killed)
	killed.end()
	reader, err := wal.Inspect(killed.dir)
	if err != nil {
		t.Fatal(err)
	}
	if report, err := reader.Verify(nil); err != nil || report.Torn != nil || len(report.Damage) > 0 {
		t.Errorf("verify says %+v, %v", report, err)
	}
}

// TestAStartReplaysLittle: with a snapshot every 40 entries, never more than that
// and what came while it was written.
func TestAStartReplaysLittle(t *testing.T) {
	dir := t.TempDir() + "/lane"
	j := openJoint(t, dir, nil)
	j.addSink("files")
	for range 300 {
		j.append(1, 100)
	}
	await(t, "the newest snapshot", func() bool { s := j.Status(); return s.Applied-s.Snapshot <= 80 }, func() any { return j.Status() })
	j.end()
	newest, err := replicate.NewestSnapshot(dir)
	if err != nil || !newest.TakenHere || newest.Index < 200 {
		t.Errorf("the newest snapshot is %+v, %v", newest, err)
	}
	j = openJoint(t, dir, nil)
	if at, _ := j.Position("clicks", 0); at.Next != 300 {
		t.Errorf("next is %d", at.Next)
	}
}

// TestParkedRecordsOutliveTheirBatches: the batch is released and its segments are
// gone, the record is still there, also after a restart.
func TestParkedRecordsOutliveTheirBatches(t *testing.T) {
	j := openJoint(t, t.TempDir()+"/lane", func(c *replicate.Config) { c.Retention = time.Millisecond })
	j.addSink("files")
	j.append(3, 200)
	seq := j.cut()
	refusal := record.Refusal{RecordID: record.RecordID{Topic: "clicks", Offset: 1}, Reason: "why not"}
	if err := j.term.Refuse(t.Context(), "files", seq, false, []record.Refusal{refusal}); err != nil {
		t.Fatal(err)
	}
	j.done("files", seq)
	for range 40 {
		j.append(4, 4000)
		j.done("files", j.cut())
	}
	await(t, "the log to begin later", func() bool { first, err := j.log.FirstIndex(); return err == nil && first > 10 }, func() any { return j.Status() })
	check := func(j *joint) {
		t.Helper()
		parked := j.Parked()
		if len(parked) != 1 || parked[0].Reason != "why not" || parked[0].Batch.Seq != seq {
			t.Fatalf("parked: %+v", parked)
		}
		_, r, err := j.ReadParked(t.Context(), parked[0].ID)
		if err != nil || r.Offset != 1 || len(r.Value) != 200 || !strings.HasPrefix(string(r.Value), "1 1 ") {
			t.Errorf("the parked record is %+v, %v", r, err)
		}
	}
	check(j)
	check(openJoint(t, j.copyOf(), nil))
}
