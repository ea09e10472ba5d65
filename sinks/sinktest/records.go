package sinktest

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"

	"forebay/internal/record"
)

func recordCases() []testCase {
	return []testCase{
		{"Poison", poison},
		{"BoundedMemory", boundedMemory},
	}
}

// Poison gives records that are as awkward as Kafka allows.
func Poison() map[string]record.Record {
	many := make([]record.Header, 1000)
	for i := range many {
		many[i] = record.Header{Key: fmt.Appendf(nil, "h%d", i%10), Value: fmt.Appendf(nil, "v%d", i)}
	}
	ok := func() record.Record { return Records(0, 1)[0] }
	with := func(change func(r *record.Record)) record.Record {
		r := ok()
		change(&r)
		return r
	}
	return map[string]record.Record{
		"nil key":                 with(func(r *record.Record) { r.Key = nil }),
		"nil value":               with(func(r *record.Record) { r.Value = nil }),
		"nil key and value":       with(func(r *record.Record) { r.Key, r.Value = nil, nil }),
		"zero bytes":              with(func(r *record.Record) { r.Key, r.Value = []byte{}, []byte{} }),
		"invalid UTF-8":           with(func(r *record.Record) { r.Key, r.Value = []byte{0xff, 'k'}, []byte{'v', 0xc3} }),
		"every byte":              with(func(r *record.Record) { r.Value = everyByte() }),
		"control and separators":  with(func(r *record.Record) { r.Value = []byte("a\x00b\r\nc\td\"e\\f\u2028g\u2029</script>,;|\x7f") }),
		"a thousand headers":      with(func(r *record.Record) { r.Headers = many }),
		"header without value":    with(func(r *record.Record) { r.Headers = []record.Header{{Key: []byte("k")}} }),
		"header of nothing":       with(func(r *record.Record) { r.Headers = []record.Header{{Key: []byte{}, Value: []byte{}}} }),
		"header of invalid UTF-8": with(func(r *record.Record) { r.Headers = []record.Header{{Key: []byte("k"), Value: []byte{0xff}}} }),
		"header key of invalid UTF-8": with(func(r *record.Record) {
			r.Headers = []record.Header{{Key: []byte{0xff}, Value: []byte("v")}}
		}),
		"timestamp 0":        with(func(r *record.Record) { r.Timestamp = 0 }),
		"timestamp negative": with(func(r *record.Record) { r.Timestamp = -1 }),
		"timestamp lowest":   with(func(r *record.Record) { r.Timestamp = math.MinInt64 }),
		"timestamp far away": with(func(r *record.Record) { r.Timestamp = math.MaxInt64 }),
		"20 MB":              with(func(r *record.Record) { r.Value = bytes.Repeat([]byte(`{"k":"0123456789"} `), 20<<20/19) }),
	}
}

func everyByte() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// poison: each arrives byte for byte, or is refused by name; none holds up the rest.
func poison(t *testing.T, s *suite) {
	recs := Poison()
	names := make([]string, 0, len(recs))
	for name := range recs {
		names = append(names, name)
	}
	slices.Sort(names)
	var all, good []record.Record
	var bad []record.RecordID
	for i, name := range names {
		r := recs[name]
		r.Offset = int64(1000 + i)
		all = append(all, r)
		if s.Takes == nil || s.Takes(&r) {
			good = append(good, r)
		} else {
			bad = append(bad, record.RecordID{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset})
		}
		t.Logf("offset %d: %s", r.Offset, name)
	}
	sink := s.open(t, 0, Identity(1, 1))
	defer closed(t, sink)
	st := &settler{}
	if err := sink.Deliver(t.Context(), NewBatch(1, 1, all), st.settle); err != nil {
		t.Fatalf("delivering: %v", err)
	}
	refusedOnly(t, st, bad)
	s.sees(t, good)
}

// repeat gives a batch of n copies of a record, with growing offsets, that takes no memory.
func repeat(b record.Batch, r *record.Record, n int) record.Batch {
	b.Read = func(ctx context.Context, fn func(*record.Record) error) error {
		lent := clone(r)
		for i := range n {
			if err := ctx.Err(); err != nil {
				return err
			}
			lent.Offset = int64(i)
			if err := fn(&lent); err != nil {
				return err
			}
		}
		return nil
	}
	return b
}

// Sizes of the large batch.
const (
	largeRecord = 64 << 10
	largeBatch  = 200 << 20
)

// boundedMemory: a batch of 200 MB passes through in a fraction of that.
func boundedMemory(t *testing.T, s *suite) {
	if testing.Short() {
		t.Skip("writes 200 MB")
	}
	sink := s.open(t, 0, Identity(1, 1))
	defer closed(t, sink)
	bound := s.MemoryBytes
	if bound == 0 {
		bound = 64 << 20
	}
	r := Records(0, 1)[0]
	r.Value = bytes.Repeat([]byte("0123456789abcdef"), largeRecord/16)
	b := repeat(NewBatch(1, 1, nil), &r, largeBatch/largeRecord)
	whole, peak, n := b.Read, uint64(0), 0
	before := liveHeap()
	b.Read = func(ctx context.Context, fn func(*record.Record) error) error {
		return whole(ctx, func(r *record.Record) error {
			if n++; n%400 == 0 {
				peak = max(peak, liveHeap())
			}
			return fn(r)
		})
	}
	st := &settler{before: func() { peak = max(peak, liveHeap()) }}
	if err := sink.Deliver(t.Context(), b, st.settle); err != nil {
		t.Fatalf("delivering: %v", err)
	}
	if peak > before+bound {
		t.Errorf("the heap grew by %d bytes, want at most %d", peak-before, bound)
	}
}

func liveHeap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
