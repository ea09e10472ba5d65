package record_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/record"
)

// manyRuns are 40 runs of 8 topics with 10 records of 100 bytes each.
func manyRuns(t testing.TB) []*record.Run {
	t.Helper()
	var records []record.Record
	for i := range 400 {
		records = append(records, record.Record{
			Topic: fmt.Sprintf("topic-%d", i%8), Partition: int32(i % 40), Offset: int64(i),
			Value: bytes.Repeat(fmt.Appendf(nil, "%09d,", i), 10), Headers: []record.Header{{Key: []byte("h")}},
		})
	}
	return runsOf(t, records)
}

func TestAppendAllocatesNothingWhenWarm(t *testing.T) {
	records := payloads()["json"]
	records[3].Headers = []record.Header{{Key: []byte("h"), Value: []byte("v")}}
	var run record.Run
	fill := func() {
		run.Reset("t", record.TopicID{}, 0, 0)
		for i := range records {
			if err := run.Append(&records[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := testing.AllocsPerRun(10, fill); n != 0 {
		t.Errorf("%v allocations for %d records", n, len(records))
	}
}

func TestSealAllocatesItsResultOnly(t *testing.T) {
	runs := manyRuns(t)
	for _, method := range methods {
		sealer := record.NewSealer(method)
		block := sealer.Seal(runs)
		if cap(block) != len(block) {
			t.Errorf("%s: %d bytes in %d", method, len(block), cap(block))
		}
		if n := testing.AllocsPerRun(20, func() { sealer.Seal(runs) }); n != 1 {
			t.Errorf("%s: %v allocations a block", method, n)
		}
	}
}

func TestNextAllocatesNothing(t *testing.T) {
	block := record.NewSealer(record.S2).Seal(manyRuns(t))
	var d record.Decoder
	var rec record.Record
	if err := d.Open(block, nil); err != nil {
		t.Fatal(err)
	}
	n := testing.AllocsPerRun(300, func() {
		if ok, err := d.Next(&rec); !ok || err != nil {
			t.Fatal(ok, err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations a record", n)
	}
}

func TestParseSummaryDoesNotLookAtTheBody(t *testing.T) {
	for _, block := range golden(t) {
		want, err := record.ParseSummary(block)
		if err != nil {
			t.Fatal(err)
		}
		const head = 100 // the summaries of the golden blocks end before
		for cut := len(block); cut > head; cut -= 7 {
			if got, err := record.ParseSummary(block[:cut]); err != nil || !cmp.Equal(want, got) {
				t.Fatalf("with %d of %d bytes: %v", cut, len(block), err)
			}
		}
	}
	runs := manyRuns(t)
	small := record.NewSealer(record.None).Seal(runs)
	one := allocated(func() { _, _ = record.ParseSummary(small) })
	if one > 16<<10 {
		t.Errorf("%d bytes for 40 spans", one)
	}
}

// HARD-CASES 1: what tells a block after a lost one from a block after a hole is
// the base, which the summary must carry apart from the first offset.
func TestLostPredecessorLooksLikeAHole(t *testing.T) {
	after := func(base int64) record.Span {
		var run record.Run
		run.Reset("t", idOf("t"), 0, base)
		if err := run.Append(&record.Record{Offset: 205}); err != nil {
			t.Fatal(err)
		}
		sum, err := record.ParseSummary(record.NewSealer(record.None).Seal([]*record.Run{&run}))
		if err != nil {
			t.Fatal(err)
		}
		return sum.Spans[0]
	}
	hole := record.Span{Topic: "t", TopicID: idOf("t"), Base: 100, First: 205, Last: 205, Records: 1}
	lost := hole
	lost.Base = 200
	if diff := cmp.Diff([]record.Span{hole, lost}, []record.Span{after(100), after(200)}); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// HARD-CASES 7: a record of 100 MiB travels in entries of at most 1 MiB, each with
// the offsets.
func TestBigRecords(t *testing.T) {
	noise := make([]byte, 1<<20) // as long as a chunk, so no chunk of it compresses
	_, _ = rand.NewChaCha8([32]byte{4}).Read(noise)
	value := make([]byte, 100<<20) // half of it zeros
	for at := 0; at < len(value)/2; at += len(noise) {
		copy(value[at:], noise)
	}
	var run record.Run
	run.Reset("t", record.TopicID{}, 0, 7)
	if err := run.Append(&record.Record{Offset: 7, Value: value}); err != nil {
		t.Fatal(err)
	}
	block := record.NewSealer(record.S2).Seal([]*record.Run{&run})
	if len(block) > 51<<20 {
		t.Errorf("the block has %d bytes", len(block))
	}
	var joiner record.Joiner
	var whole []byte
	for _, part := range record.Split(block) {
		sum, err := record.ParseSummary(part)
		if err != nil || len(part) > record.MaxEntry || sum.Spans[0].Last != 7 {
			t.Fatalf("a part of %d bytes says %+v, %v", len(part), sum, err)
		}
		if whole, _, err = joiner.Add(part); err != nil {
			t.Fatal(err)
		}
	}
	var d record.Decoder
	var rec record.Record
	used := allocated(func() {
		if err := d.Open(whole, nil); err != nil {
			t.Fatal(err)
		}
	})
	if ok, err := d.Next(&rec); !ok || err != nil || !bytes.Equal(rec.Value, value) {
		t.Fatalf("%d bytes came back, %v, %v", len(rec.Value), ok, err)
	}
	if used > 3*uint64(len(value)) {
		t.Errorf("decompressing %d bytes allocated %d", len(value), used)
	}
}

func TestSplitLeavesASmallBlockWhole(t *testing.T) {
	block, _ := crafted(nil)
	if parts := record.Split(block); len(parts) != 1 || !bytes.Equal(parts[0], block) {
		t.Errorf("got %x", parts)
	}
}

func TestSplitSizes(t *testing.T) {
	const near = record.MaxEntry - 200
	around := len(seal(t, make([]byte, near))) - near // what stands around a value of about that length
	for _, beyond := range []int{-1, 0, 1} {
		block := seal(t, make([]byte, record.MaxEntry-around+beyond))
		want := 1
		if beyond > 0 {
			want = 2
		}
		if parts := record.Split(block); len(block) != record.MaxEntry+beyond || len(parts) != want {
			t.Errorf("a block of %d bytes makes %d parts, want %d", len(block), len(parts), want)
		}
	}
}

func seal(t testing.TB, value []byte) []byte {
	t.Helper()
	var run record.Run
	run.Reset("t", record.TopicID{}, 0, 0)
	if err := run.Append(&record.Record{Value: value}); err != nil {
		t.Fatal(err)
	}
	return record.NewSealer(record.None).Seal([]*record.Run{&run})
}

// What Append takes, every reader takes; the rest is refused by name before it can
// get into the log, where it would stop every node.
func TestLimits(t *testing.T) {
	large := make([]byte, record.MaxBody/2+1) // never written to, so never in memory
	for name, c := range map[string]struct {
		topic     string
		partition int32
		base      int64
		rec       record.Record
		ok        bool
	}{
		"the last offset":      {topic: "t", base: 0, rec: record.Record{Offset: record.MaxOffset}, ok: true},
		"beyond it":            {topic: "t", base: 0, rec: record.Record{Offset: record.MaxOffset + 1}},
		"the end of int64":     {topic: "t", base: math.MaxInt64, rec: record.Record{Offset: math.MaxInt64}},
		"the last partition":   {topic: "t", partition: math.MaxInt32, ok: true},
		"a negative partition": {topic: "t", partition: -1},
		"a negative base":      {topic: "t", base: -1, rec: record.Record{Offset: 0}},
		"the longest name":     {topic: strings.Repeat("t", record.MaxTopic), ok: true},
		"a longer name":        {topic: strings.Repeat("t", record.MaxTopic+1)},
		"the most headers":     {topic: "t", rec: record.Record{Headers: make([]record.Header, record.MaxHeaders)}, ok: true},
		"one more":             {topic: "t", rec: record.Record{Headers: make([]record.Header, record.MaxHeaders+1)}},
		"too large":            {topic: "t", rec: record.Record{Key: large, Value: large}},
	} {
		t.Run(name, func(t *testing.T) {
			var run record.Run
			run.Reset(c.topic, record.TopicID{}, c.partition, c.base)
			before := run.Span()
			var err error
			copied := allocated(func() { err = run.Append(&c.rec) })
			if !c.ok {
				if copied > 1<<20 {
					t.Errorf("%d bytes were allocated to refuse it", copied)
				}
				var limit *record.LimitError
				if !errors.As(err, &limit) || limit.Offset != c.rec.Offset || limit.What == "" {
					t.Fatalf("got %v, want a *LimitError", err)
				}
				if !run.Empty() || run.Size() != 0 || run.Span() != before {
					t.Errorf("the run changed to %+v", run.Span())
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := decode(record.NewSealer(record.S2).Seal([]*record.Run{&run}), nil)
			if err != nil || len(got) != 1 || got[0].Offset != c.rec.Offset || len(got[0].Headers) != len(c.rec.Headers) || got[0].Topic != c.topic {
				t.Errorf("it does not come back: %d records, %v", len(got), err)
			}
		})
	}
}

// A small block must not make a reader hold 48 bytes for each of a billion headers.
func TestABombOfHeaders(t *testing.T) {
	const n = 2 * (record.MaxHeaders + 1)
	block, _ := crafted(func(l *layout) {
		l.spans[0].records, l.spans[0].last, l.spans[0].bytes = 1, 0, 0
		l.body = append([]byte{0, 0, 0, 0, 0x81, 0x80, 0x40}, make([]byte, n)...)
		resize(l, len(l.body))
	})
	var err error
	if got := allocated(func() { _, err = decode(block, nil) }); got > 1<<20 {
		t.Errorf("allocated %d", got)
	}
	var format *record.FormatError
	if !errors.As(err, &format) || format.What != "too many headers" {
		t.Errorf("got %v", err)
	}
}

// A count is bounded by what a summary may be, not by the body behind it.
func TestABombOfSpans(t *testing.T) {
	block, _ := crafted(func(l *layout) {
		l.spanCount = 1 << 20
		l.body = bytes.Repeat([]byte{0x7f}, 16<<20)
	})
	var err error
	if got := allocated(func() { _, err = record.ParseSummary(block) }); got > 1<<20 {
		t.Errorf("allocated %d", got)
	}
	var format *record.FormatError
	if !errors.As(err, &format) {
		t.Errorf("got %v, want a *FormatError", err)
	}
}

// What was done with a Sealer and a Decoder before leaves no trace.
func TestReusedIsAsNew(t *testing.T) {
	broken, _ := crafted(func(l *layout) { l.body[3] = 0x7f })
	for _, method := range methods {
		sealer := record.NewSealer(method)
		var d record.Decoder
		for i, runs := range [][]*record.Run{
			manyRuns(t), runsOf(t, payloads()["json"]), {new(record.Run)}, manyRuns(t)[3:7], runsOf(t, payloads()["random"]), manyRuns(t)[:2],
		} {
			block := sealer.Seal(runs)
			if !bytes.Equal(block, record.NewSealer(method).Seal(runs)) {
				t.Fatalf("%s: block %d is another from a new Sealer", method, i)
			}
			if block == nil {
				continue
			}
			want, err := decode(block, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := decodeWith(&d, block, nil)
			if err != nil || !reflect.DeepEqual(want, got) { // cmp is slow on so many bytes
				t.Fatalf("%s: block %d is read otherwise by a new Decoder: %v", method, i, err)
			}
			if _, err := decodeWith(&d, broken, nil); err == nil {
				t.Fatal("a broken block was read")
			}
			if _, again := d.Next(new(record.Record)); again == nil {
				t.Fatal("the error was forgotten")
			}
		}
	}
}

// A block whose summary leaves its parts no room cannot be divided: DESIGN.md says
// how many partitions that takes.
func TestASummaryThatFillsParts(t *testing.T) {
	runs := func(n int) []*record.Run {
		var runs []*record.Run
		for i := range n {
			run := new(record.Run)
			run.Reset(fmt.Sprintf("%0*d", record.MaxTopic, i), record.TopicID{}, math.MaxInt32, 1<<40)
			if err := run.Append(&record.Record{Offset: 1 << 41, Value: make([]byte, 500)}); err != nil {
				t.Fatal(err)
			}
			runs = append(runs, run)
		}
		return runs
	}
	for _, part := range record.Split(record.NewSealer(record.None).Seal(runs(2500))) {
		if len(part) > record.MaxEntry {
			t.Fatalf("a part of %d bytes", len(part))
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("2900 names were repeated in every part")
		}
	}()
	record.Split(record.NewSealer(record.None).Seal(runs(2900)))
}
