package file

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"forebay/internal/record"
	"forebay/sinks"
	"forebay/sinks/sinktest"
)

const batches = 3

// world is a log, a disk, and a consumer that takes away what lies below the cursor.
type world struct {
	t    *testing.T
	disk *memDisk
	term uint64
	// done is what the log says: the sink's cursor.
	done uint64
	// taken is what the consumer has moved away.
	taken map[string][]byte
}

func recordsOf(seq uint64) []record.Record { return sinktest.Records(int64(seq)*100, 4) }

// run plays one process: it opens the sink and delivers what is due until the
// disk fails it.
func (w *world) run() error {
	w.term++
	cfg := Config{Dir: "/out"}
	if w.term > 1 {
		cfg.Compression = None // the same form: the oracle reads lines
		cfg.Mapper = upper{}   // but another mapping
	}
	s, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	s.fs = w.disk
	ctx := w.t.Context()
	if err := s.Open(ctx, sinktest.Identity(w.term, w.done)); err != nil {
		return err
	}
	defer closeSink(w.t, s)
	for w.done <= batches {
		b := sinktest.NewBatch(w.term, w.done, recordsOf(w.done))
		settle := func(context.Context, []record.Refusal) error { return nil }
		if err := s.Deliver(ctx, b, settle); err != nil {
			return err
		}
		w.done++
		if err := s.Advanced(ctx, record.BatchID{Seq: w.done}, record.BatchID{Seq: 1}); err != nil {
			return err
		}
		w.consume()
	}
	return nil
}

// consume takes the files below the cursor, as a job may at any time.
func (w *world) consume() {
	w.t.Helper()
	d := w.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	cursor := d.names["cursor-0"]
	if cursor == nil {
		return
	}
	limit := batchPrefix + strings.TrimSuffix(string(cursor.data), "\n")
	for _, name := range slices.Collect(maps.Keys(d.names)) {
		if _, ok := parseFinal(name); !ok || name >= limit {
			continue
		}
		if _, twice := w.taken[name]; twice {
			w.t.Fatalf("%s came a second time after it was taken away", name)
		}
		w.taken[name] = d.names[name].data
		delete(d.names, name)
		delete(d.durable, name)
	}
}

// check holds what was taken against what was sent.
func (w *world) check() {
	w.t.Helper()
	w.consume()
	if len(w.taken) != batches {
		w.t.Fatalf("the consumer took %v, want %d files", slices.Sorted(maps.Keys(w.taken)), batches)
	}
	for name, content := range w.taken {
		id, _ := parseFinal(name)
		got := parseFile(w.t, name, content, "base64")
		want := recordsOf(id.Seq)
		if len(got) != len(want) {
			w.t.Fatalf("%s has %d records, want %d", name, len(got), len(want))
		}
		for i, r := range got {
			if r.Offset != want[i].Offset || !bytes.EqualFold(r.Value, want[i].Value) {
				w.t.Fatalf("%s record %d is %v", name, i, r)
			}
		}
	}
	for name := range w.disk.names {
		if strings.HasPrefix(name, tmpPrefix) {
			w.t.Fatalf("%s was left behind", name)
		}
	}
}

// TestEveryStep stops the sink at each of its steps, by an error, by kill -9 and by a
// power cut that keeps less or more of what was not synced. Every batch is in exactly one file in the
// end, also when the log lost the done that it was about to write.
func TestEveryStep(t *testing.T) {
	clean := &world{t: t, disk: newMemDisk(), done: 1, taken: map[string][]byte{}}
	if err := clean.run(); err != nil {
		t.Fatal(err)
	}
	clean.check()
	steps := clean.disk.steps
	if steps < 50 {
		t.Fatalf("only %d steps were counted", steps)
	}
	for k := range steps {
		for _, c := range []cut{keepAll, dropAll, keepNames, keepContents} {
			t.Run(fmt.Sprintf("step %d, %v", k, c), func(t *testing.T) {
				w := &world{t: t, disk: newMemDisk(), done: 1, taken: map[string][]byte{}}
				w.disk.left, w.disk.crash = k, true
				if err := w.run(); err == nil {
					t.Skip("the last steps are not waited for")
				}
				w.disk.restart(c)
				w.consume()
				if err := w.run(); err != nil {
					t.Fatalf("after the restart: %v", err)
				}
				w.check()
			})
		}
		t.Run(fmt.Sprintf("step %d, error", k), func(t *testing.T) {
			w := &world{t: t, disk: newMemDisk(), done: 1, taken: map[string][]byte{}}
			w.disk.left = k
			err := w.run()
			if sinks.IsPermanent(err) {
				t.Fatalf("a passing error stopped the sink for good: %v", err)
			}
			if err := w.run(); err != nil {
				t.Fatalf("after the error: %v", err)
			}
			w.check()
		})
	}
}

// TestErrorWithinDelivery fails each step of one sink value's life once, and
// goes on with the same value, as the batcher's retries do.
func TestErrorWithinDelivery(t *testing.T) {
	for k := range 200 {
		w := &world{t: t, disk: newMemDisk(), done: 1, term: 1, taken: map[string][]byte{}}
		s, err := New(Config{Dir: "/out"})
		if err != nil {
			t.Fatal(err)
		}
		s.fs = w.disk
		if err := s.Open(t.Context(), sinktest.Identity(1, 1)); err != nil {
			t.Fatal(err)
		}
		w.disk.left = k
		failures := 0
		for w.done <= batches {
			b := sinktest.NewBatch(1, w.done, recordsOf(w.done))
			err := s.Deliver(t.Context(), b, func(context.Context, []record.Refusal) error { return nil })
			if err != nil {
				if failures++; failures > 1 {
					t.Fatalf("step %d: the retry failed too: %v", k, err)
				}
				continue
			}
			w.done++
			_ = s.Advanced(t.Context(), record.BatchID{Seq: w.done}, record.BatchID{Seq: 1})
			w.consume()
		}
		_ = s.Advanced(t.Context(), record.BatchID{Seq: w.done}, record.BatchID{Seq: 1})
		w.check()
		closeSink(t, s)
	}
}

// TestCrashBeforeTheDone: the batch is durable, the process dies before the log
// has the done. The batch that comes again, through another mapping, changes nothing.
func TestCrashBeforeTheDone(t *testing.T) {
	for _, c := range []cut{keepAll, dropAll, keepNames, keepContents} {
		t.Run(c.String(), func(t *testing.T) {
			w := &world{t: t, disk: newMemDisk(), term: 1, done: 1, taken: map[string][]byte{}}
			s, err := New(Config{Dir: "/out"})
			if err != nil {
				t.Fatal(err)
			}
			s.fs = w.disk
			if err := s.Open(t.Context(), sinktest.Identity(1, 1)); err != nil {
				t.Fatal(err)
			}
			settle := func(context.Context, []record.Refusal) error { return nil }
			if err := s.Deliver(t.Context(), sinktest.NewBatch(1, 1, recordsOf(1)), settle); err != nil {
				t.Fatal(err)
			}
			name := finalName(record.BatchID{Seq: 1}, ".jsonl")
			was := bytes.Clone(w.disk.names[name].data)
			w.disk.restart(c)
			if err := w.run(); err != nil {
				t.Fatal(err)
			}
			w.check()
			if !bytes.Equal(w.taken[name], was) {
				t.Errorf("%s changed:\n%s\nwas\n%s", name, w.taken[name], was)
			}
		})
	}
}

// TestFoundFileIsMadeDurable: killed between the name and the sync of the
// directory; the batch comes again, is found, and reported as delivered. Then the power goes.
func TestFoundFileIsMadeDurable(t *testing.T) {
	name := finalName(record.BatchID{Seq: 1}, ".jsonl")
	met := false
	for k := range 100 {
		disk := newMemDisk()
		open := func(term uint64) *Sink {
			s, err := New(Config{Dir: "/out"})
			if err != nil {
				t.Fatal(err)
			}
			s.fs = disk
			if err := s.Open(t.Context(), sinktest.Identity(term, 1)); err != nil {
				t.Fatal(err)
			}
			return s
		}
		settle := func(context.Context, []record.Refusal) error { return nil }
		s := open(1)
		disk.left, disk.crash = k, true
		if s.Deliver(t.Context(), sinktest.NewBatch(1, 1, recordsOf(1)), settle) == nil {
			break
		}
		disk.restart(keepAll)
		met = met || disk.names[name] != nil && disk.durable[name] == nil
		if err := open(2).Deliver(t.Context(), sinktest.NewBatch(2, 1, recordsOf(1)), settle); err != nil {
			t.Fatal(err)
		}
		disk.restart(dropAll)
		if n := disk.names[name]; n == nil || len(n.data) == 0 {
			t.Fatalf("step %d: the batch that was reported as delivered is gone", k)
		}
	}
	if !met {
		t.Fatal("the moment between the name and its sync was never met")
	}
}
