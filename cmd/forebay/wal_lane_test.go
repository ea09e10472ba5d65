package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"forebay/internal/record"
	"forebay/replicate"
	"forebay/wal"
)

// testLane is a lane that runs in a data directory, without a gateway around it.
type testLane struct {
	t    *testing.T
	log  *wal.Log
	lane *replicate.Lane
	term *replicate.Term
	end  func()
}

var laneTopic = record.TopicID{15: 7}

// startLane starts the lane of a data directory, as a node would, and waits until it leads.
func startLane(t *testing.T, data string) *testLane {
	t.Helper()
	dir := filepath.Join(data, "lanes", "0")
	newest, err := replicate.NewestSnapshot(dir)
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	log, err := wal.Open(wal.Config{
		Dir: dir, SegmentSize: 8 << 10, Logger: quiet, LockWait: -1,
		SnapshotIndex: newest.Index, SnapshotTerm: newest.Term, SnapshotTaken: newest.TakenHere,
	})
	if err != nil {
		t.Fatal(err)
	}
	lane, err := replicate.Open(replicate.Config{
		NodeID: "n1", Gateway: "forebay", Lanes: 1, Dir: dir, Store: log, Retention: time.Hour, SnapshotEntries: 40, Logger: quiet,
	})
	if err != nil {
		t.Fatal(errors.Join(err, log.Close()))
	}
	ctx, cancel := context.WithCancel(context.Background())
	leads, over := make(chan *replicate.Term, 1), make(chan error, 1)
	go func() {
		over <- lane.Lead(ctx, func(_ context.Context, term *replicate.Term) { leads <- term })
	}()
	l := &testLane{t: t, log: log, lane: lane}
	l.end = func() {
		cancel()
		_ = <-over
		if err := errors.Join(lane.Close(context.Background()), log.Close()); err != nil {
			t.Error(err)
		}
		l.end = func() {}
	}
	t.Cleanup(func() { l.end() })
	select {
	case l.term = <-leads:
	case err := <-over:
		over <- err
		t.Fatalf("the lane does not lead: %v", err)
	}
	return l
}

func (l *testLane) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// append takes in n records of a partition, from where it stands.
func (l *testLane) append(partition int32, n, size int) {
	l.t.Helper()
	pos, _ := l.lane.Position("t", partition)
	var run record.Run
	run.Reset("t", laneTopic, partition, pos.Next)
	for i := range n {
		value := bytes.Repeat(fmt.Appendf(nil, "%d@%d.", partition, pos.Next+int64(i)), size/4+1)[:size]
		l.must(run.Append(&record.Record{Offset: pos.Next + int64(i), Timestamp: 1_700_000_000_000, Value: value}))
	}
	settled := make(chan error, 1)
	l.must(l.term.Append(l.t.Context(), record.NewSealer(record.None).Seal([]*record.Run{&run}), func(err error) { settled <- err }))
	l.must(<-settled)
}

func (l *testLane) cut() {
	l.t.Helper()
	l.must(l.term.Cut(l.t.Context(), l.lane.LastSeq()+1, time.Now().UnixMilli()))
}

// deliver moves a sink's cursor to next.
func (l *testLane) deliver(sink string, next uint64) {
	l.t.Helper()
	for k, _ := l.lane.Sink(sink); k.Cursor < next; k, _ = l.lane.Sink(sink) {
		l.must(l.term.Done(l.t.Context(), record.Done{Sink: sink, Seq: k.Cursor, Attempts: 1, StartedAt: 1, DoneAt: 2}))
	}
}

// batch reads a batch, as "partition@offset".
func (l *testLane) batch(seq uint64) ([]string, error) {
	var got []string
	err := l.lane.ReadBatch(l.t.Context(), seq, nil, func(r *record.Record) error {
		got = append(got, nameOf(r.Partition, r.Offset))
		return nil
	})
	return got, err
}

func nameOf(partition int32, offset int64) string { return fmt.Sprintf("%d@%d", partition, offset) }

// fixtureLane makes a data directory whose lane has run: 40 batches, of which the sink fast has all but two
// and slow all but twelve, several snapshots, and records that are not cut yet. contents are its batches.
func fixtureLane(t *testing.T) (data string, contents map[uint64][]string) {
	t.Helper()
	data = t.TempDir()
	if err := os.MkdirAll(filepath.Join(data, "lanes", "0"), 0o700); err != nil {
		t.Fatal(err)
	}
	l := startLane(t, data)
	l.must(l.term.AddSink(t.Context(), "fast", "f", false))
	l.must(l.term.AddSink(t.Context(), "slow", "s", false))
	l.must(l.term.SetBases(t.Context(), []record.Base{
		{Topic: "t", TopicID: laneTopic, Partition: 0, Next: 1000}, {Topic: "t", TopicID: laneTopic, Partition: 1}, {Topic: "t", TopicID: laneTopic, Partition: 2},
	}))
	contents = map[uint64][]string{}
	for seq := uint64(1); seq <= 40; seq++ {
		for range 2 {
			for p := range int32(3) {
				l.append(p, 3, 200)
			}
		}
		if seq == 33 {
			l.append(1, 1, record.MaxEntry+record.MaxEntry/4) // in parts
		}
		l.cut()
		got, err := l.batch(seq)
		l.must(err)
		contents[seq] = got
		if seq > 2 {
			l.deliver("fast", seq-1)
		}
		if seq > 12 {
			l.deliver("slow", seq-11)
		}
	}
	l.append(0, 3, 200)
	l.end()
	return data, contents
}

// forebay runs a command line and gives its exit code, its output and what it said.
func forebay(t *testing.T, stdin string, args ...string) (code int, out, say string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	p := &program{in: strings.NewReader(stdin), out: &stdout, err: &stderr}
	code = p.run(t.Context(), args)
	return code, stdout.String(), stderr.String()
}

// copyData copies a data directory.
func copyData(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func segmentsOf(t *testing.T, data string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(data, "lanes", "0", "log", "*"))
	if err != nil || len(list) == 0 {
		t.Fatalf("%v, %v", list, err)
	}
	slices.Sort(list)
	return list
}

// change rewrites a file.
func change(t *testing.T, path string, how func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, how(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

// snapshotTree are the bytes of all files under the lane's directory but the lock.
func snapshotTree(t *testing.T, data string) map[string]string {
	t.Helper()
	files := map[string]string{}
	root := os.DirFS(filepath.Join(data, "lanes", "0"))
	paths, err := filepath.Glob(filepath.Join(data, "lanes", "0", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"log", "snapshots"} {
		more, _ := filepath.Glob(filepath.Join(data, "lanes", "0", dir, "*"))
		paths = append(paths, more...)
	}
	for _, path := range paths {
		rel, _ := filepath.Rel(filepath.Join(data, "lanes", "0"), path)
		f, err := root.Open(rel)
		if err != nil || rel == "lock" {
			continue
		}
		if b, err := io.ReadAll(f); err == nil {
			files[rel] = string(b)
		}
		_ = f.Close()
	}
	return files
}
