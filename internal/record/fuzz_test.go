package record_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/record"
)

// golden are the kept blocks, of every compression.
func golden(t testing.TB) [][]byte {
	t.Helper()
	var blocks [][]byte
	for _, method := range methods {
		kept, err := os.ReadFile(filepath.Join("testdata", "block-v1-"+method.String()+".golden"))
		if err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, kept)
	}
	return blocks
}

// allocated gives the bytes that fn allocates.
func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// typed fails when an error of a decoder is of no documented type.
func typed(t *testing.T, err error) {
	t.Helper()
	var format *record.FormatError
	if err != nil && !errors.As(err, &format) && !errors.Is(err, record.ErrVersion) && !errors.Is(err, record.ErrParts) {
		t.Fatalf("an error of no documented type: %v", err)
	}
}

func FuzzParseSummary(f *testing.F) {
	for _, block := range golden(f) {
		f.Add(block)
	}
	for _, h := range hostile() {
		f.Add(h.entry)
	}
	f.Fuzz(func(t *testing.T, entry []byte) {
		var summary record.Summary
		var err error
		most := uint64(64*len(entry) + 64<<10)
		if got := allocated(func() { summary, err = record.ParseSummary(entry) }); got > most {
			t.Fatalf("%d bytes made it allocate %d", len(entry), got)
		}
		typed(t, err)
		var records int64
		for _, s := range summary.Spans {
			if s.Base < 0 || s.First < s.Base || s.Last < s.First || s.Last > record.MaxOffset || s.Partition < 0 || s.Records < 1 || s.Bytes < 0 {
				t.Fatalf("a span that cannot be: %+v", s)
			}
			records += s.Records
		}
		if records != summary.Records {
			t.Fatalf("%d records in the spans, %d in all", records, summary.Records)
		}
		// As much of the entry as is said to be needed says the same, and a byte less does not.
		n, lengthErr := record.SummaryLength(entry)
		if (lengthErr == nil) != (err == nil) {
			t.Fatalf("parsed with %v, measured with %v", err, lengthErr)
		}
		if err != nil {
			return
		}
		if again, err := record.ParseSummary(entry[:n:n]); err != nil || !cmp.Equal(again, summary) {
			t.Fatalf("of %d bytes the first %d say %+v, %v, and all %+v", len(entry), n, again, err, summary)
		}
		if _, err := record.ParseSummary(entry[: n-1 : n-1]); err == nil {
			t.Fatalf("%d bytes are enough, not only %d", n-1, n)
		}
	})
}

func FuzzDecoder(f *testing.F) {
	for _, block := range golden(f) {
		f.Add(block)
	}
	for _, h := range hostile() {
		f.Add(h.entry)
	}
	f.Fuzz(func(t *testing.T, block []byte) {
		if summary, err := record.ParseSummary(block); err == nil && summary.Bytes+summary.Records*5 > 64<<20 {
			t.Skip("a genuine bomb: nothing wrong, only slow")
		}
		records, err := decode(block, nil)
		typed(t, err)
		if err != nil {
			return
		}
		summary, err := record.ParseSummary(block)
		if err != nil {
			t.Fatalf("a block without a summary was decoded: %v", err)
		}
		for _, s := range summary.Spans {
			if int64(len(records)) < s.Records {
				t.Fatalf("%d records are left for %+v", len(records), s)
			}
			own := records[:s.Records]
			records = records[s.Records:]
			if own[0].Offset != s.First || own[len(own)-1].Offset != s.Last {
				t.Fatalf("offsets %d to %d in %+v", own[0].Offset, own[len(own)-1].Offset, s)
			}
			var run record.Run
			run.Reset(s.Topic, s.TopicID, s.Partition, s.Base)
			for i := range own {
				if err := run.Append(&own[i]); err != nil {
					t.Fatalf("what was decoded cannot be encoded: %v", err)
				}
			}
			if run.Span() != s {
				t.Fatalf("encoded again the span is %+v, was %+v", run.Span(), s)
			}
		}
		if len(records) > 0 {
			t.Fatalf("%d records too many", len(records))
		}
	})
}

func FuzzJoiner(f *testing.F) {
	block, summary := crafted(nil)
	parts := smallParts(block, summary, len(block)/2+1)
	f.Add(parts[0], parts[1])
	f.Add(parts[1], parts[0])
	f.Add(parts[0], parts[0])
	for _, h := range hostile() {
		f.Add(h.entry, h.entry)
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var j record.Joiner
		for _, part := range [][]byte{a, b} {
			block, done, err := j.Add(part)
			typed(t, err)
			if !done {
				continue
			}
			if err != nil || len(block) > len(a)+len(b) {
				t.Fatalf("made %d bytes of %d and %d: %v", len(block), len(a), len(b), err)
			}
			whole, err := record.ParseSummary(block)
			if err != nil {
				t.Fatalf("gave a block without a summary: %v", err)
			}
			if said, err := record.ParseSummary(part); err != nil || said.Records != whole.Records || said.Bytes != whole.Bytes {
				t.Fatalf("the part says %+v (%v), the block %+v", said, err, whole)
			}
		}
	})
}

func FuzzParseBatchID(f *testing.F) {
	f.Add("0-00000000000000000042")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := record.ParseBatchID(s)
		if err != nil {
			return
		}
		if again, err := record.ParseBatchID(id.String()); err != nil || again != id {
			t.Fatalf("%q: %v reads as %v, %v", s, id, again, err)
		}
	})
}
