package state

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forebay/internal/record"
)

var update = flag.Bool("update", false, "write the golden files anew")

// log is a lane in a test: a state and the entries that it was given.
type log struct {
	t       testing.TB
	s       *State
	index   uint64
	entries map[uint64][]byte
}

var (
	idA = record.TopicID{0xa}
	idB = record.TopicID{0xb}
)

const at0 = int64(1_700_000_000_000)

func theForm() Form {
	return Form{LogID: LogID{1, 2, 3}, Gateway: "g", Lane: 0, Lanes: 1, Node: "n1", Incarnation: [16]byte{9}, At: at0}
}

// newLog is a lane of term 1 that knows t/0 at 100, t/1 at 0 and u/0 at 0.
func newLog(t testing.TB) *log {
	t.Helper()
	l := &log{t: t, s: New(), entries: map[uint64][]byte{}}
	l.ok(theForm())
	l.ok(Begin{Term: 1, Node: "n1", At: at0})
	l.ok(Bases{At: at0, Bases: []record.Base{
		{Topic: "t", TopicID: idA, Partition: 0, Next: 100},
		{Topic: "t", TopicID: idA, Partition: 1, Next: 0},
		{Topic: "u", TopicID: idA, Partition: 0, Next: 0},
	}})
	return l
}

// apply takes an entry, encoded or not, at the next index.
func (l *log) apply(e any) Outcome {
	l.t.Helper()
	b, isBytes := e.([]byte)
	if !isBytes {
		b = Encode(e)
	}
	l.index++
	l.entries[l.index] = b
	return l.s.Apply(l.index, b)
}

// ok applies an entry that must be accepted, and gives its index.
func (l *log) ok(e any) uint64 {
	l.t.Helper()
	if out := l.apply(e); out.Err != nil {
		l.t.Fatalf("entry %d: %v", l.index, out.Err)
	}
	return l.index
}

// no applies an entry that must be refused in these words, and change nothing.
func (l *log) no(e any, words string) uint64 {
	l.t.Helper()
	before := l.meaning()
	out := l.apply(e)
	if !errors.Is(out.Err, record.ErrRefused) || !strings.Contains(out.Err.Error(), words) {
		l.t.Fatalf("entry %d: outcome %v, want a refusal that says %q", l.index, out.Err, words)
	}
	if after := l.meaning(); after != before {
		l.t.Fatalf("refused entry %d changed the state", l.index)
	}
	return l.index
}

// meaning is the state but for what every entry may change: the applied index,
// and the indexes that readers skip.
func (l *log) meaning() string {
	applied, skip := l.s.applied, l.s.open.skip
	l.s.applied, l.s.open.skip = 1<<40, nil
	m := string(l.s.Marshal(nil))
	l.s.applied, l.s.open.skip = applied, skip
	return m
}

// cut ends the open batch.
func (l *log) cut() uint64 {
	l.t.Helper()
	return l.ok(Cut{Term: l.s.Term(), Seq: l.s.LastSeq() + 1, At: at0})
}

func (l *log) done(sink string) {
	l.t.Helper()
	k, _ := l.s.Sink(sink)
	l.ok(Done{Term: l.s.Term(), Done: record.Done{Sink: sink, Seq: k.Cursor, Attempts: 1, StartedAt: at0, DoneAt: at0}})
}

// fetch reads the log as it is after everything below the floor went.
func (l *log) fetch(index uint64) ([]byte, error) {
	if index < l.s.Floor() {
		return nil, fmt.Errorf("entry %d: %w", index, record.ErrReleased)
	}
	return l.entries[index], nil
}

// read gives the records of a batch, as "topic/partition@offset".
func (l *log) read(seq uint64) []string {
	l.t.Helper()
	layout, ok := l.s.Layout(seq)
	if !ok {
		l.t.Fatalf("there is no batch %d", seq)
	}
	var got []string
	err := layout.Blocks(l.fetch, func(_ []uint64, block []byte) error {
		got = append(got, records(l.t, block)...)
		return nil
	})
	if err != nil {
		l.t.Fatalf("reading batch %d: %v", seq, err)
	}
	return got
}

// restart puts the state through a snapshot.
func (l *log) restart() {
	l.t.Helper()
	l.s = reopened(l.t, l.s)
}

func reopened(t testing.TB, s *State) *State {
	t.Helper()
	again, err := Unmarshal(s.Marshal(nil))
	if err != nil {
		t.Fatalf("reading a snapshot: %v", err)
	}
	return again
}

func records(t testing.TB, block []byte) []string {
	t.Helper()
	var d record.Decoder
	if err := d.Open(block, nil); err != nil {
		t.Fatalf("opening a block: %v", err)
	}
	var out []string
	var rec record.Record
	for {
		more, err := d.Next(&rec)
		if err != nil {
			t.Fatalf("reading a block: %v", err)
		}
		if !more {
			return out
		}
		out = append(out, fmt.Sprintf("%s/%d@%d", rec.Topic, rec.Partition, rec.Offset))
	}
}

// claim is one partition's share of a block in a test.
type claim struct {
	topic     string
	id        record.TopicID
	partition int32
	base      int64
	offsets   []int64
}

// from is a claim of n records from base on, without holes.
func from(topic string, partition int32, base int64, n int) claim {
	c := claim{topic: topic, id: idA, partition: partition, base: base}
	for i := range n {
		c.offsets = append(c.offsets, base+int64(i))
	}
	return c
}

func (c claim) of(id record.TopicID) claim {
	c.id = id
	return c
}

// block seals claims; each record has a value of this size.
func block(t testing.TB, size int, claims ...claim) []byte {
	t.Helper()
	value := make([]byte, size)
	for i := range value {
		value[i] = byte(i*i>>7) ^ byte(i)
	}
	var runs []*record.Run
	for _, c := range claims {
		r := &record.Run{}
		r.Reset(c.topic, c.id, c.partition, c.base)
		for _, o := range c.offsets {
			if err := r.Append(&record.Record{Offset: o, Timestamp: at0, Value: value}); err != nil {
				t.Fatalf("appending a record: %v", err)
			}
		}
		runs = append(runs, r)
	}
	return record.NewSealer(record.None).Seal(runs)
}

func small(t testing.TB, claims ...claim) []byte {
	t.Helper()
	return block(t, 10, claims...)
}

// large gives the parts of a block that is too large for an entry: 3 of them.
func large(t testing.TB, c claim) [][]byte {
	t.Helper()
	parts := record.Split(block(t, record.MaxEntry*5/2/len(c.offsets), c))
	if len(parts) != 3 {
		t.Fatalf("the block has %d parts, want 3", len(parts))
	}
	return parts
}

// golden compares with a file of testdata, or writes it.
func golden(t *testing.T, name string, got []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (run with -update)", err)
	}
	return want
}
