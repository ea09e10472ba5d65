package record_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"forebay/internal/record"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var methods = []record.Compression{record.None, record.S2, record.Zstd}

// clone keeps a record beyond the decoder's next step.
func clone(r record.Record) record.Record {
	r.Key, r.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
	headers := r.Headers
	r.Headers = nil
	for _, h := range headers {
		r.Headers = append(r.Headers, record.Header{Key: bytes.Clone(h.Key), Value: bytes.Clone(h.Value)})
	}
	return r
}

// runsOf groups records, which are in order, into runs by partition, in order of appearance.
func runsOf(t testing.TB, records []record.Record) []*record.Run {
	t.Helper()
	type key struct {
		topic     string
		partition int32
	}
	byKey := map[key]*record.Run{}
	var runs []*record.Run
	for i := range records {
		r := &records[i]
		k := key{r.Topic, r.Partition}
		if byKey[k] == nil {
			byKey[k] = &record.Run{}
			byKey[k].Reset(r.Topic, idOf(r.Topic), r.Partition, r.Offset)
			runs = append(runs, byKey[k])
		}
		if err := byKey[k].Append(r); err != nil {
			t.Fatal(err)
		}
	}
	return runs
}

func idOf(topic string) (id record.TopicID) {
	copy(id[:], topic)
	return id
}

func decode(block []byte, want func(string) bool) ([]record.Record, error) {
	return decodeWith(new(record.Decoder), block, want)
}

func decodeWith(d *record.Decoder, block []byte, want func(string) bool) ([]record.Record, error) {
	if err := d.Open(block, want); err != nil {
		return nil, err
	}
	var records []record.Record
	var r record.Record
	for {
		ok, err := d.Next(&r)
		if !ok {
			return records, err
		}
		records = append(records, clone(r))
	}
}

// grouped orders records as a block has them: by partition in order of appearance.
func grouped(records []record.Record) []record.Record {
	var out []record.Record
	done := map[string]bool{}
	for _, first := range records {
		k := fmt.Sprint(first.Topic, "/", first.Partition)
		if done[k] {
			continue
		}
		done[k] = true
		for _, r := range records {
			if fmt.Sprint(r.Topic, "/", r.Partition) == k {
				out = append(out, r)
			}
		}
	}
	return out
}

func drawBytes(t *rapid.T, label string) []byte {
	if rapid.Bool().Draw(t, label+" is nil") {
		return nil
	}
	b := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, label)
	return append([]byte{}, b...)
}

func TestWhatIsSealedIsDecoded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		next := map[string]int64{}
		var records []record.Record
		for range rapid.IntRange(1, 30).Draw(t, "records") {
			r := record.Record{
				Topic:     rapid.SampledFrom([]string{"a", "clicks", "π"}).Draw(t, "topic"),
				Partition: rapid.Int32Range(0, 2).Draw(t, "partition"),
				Timestamp: rapid.OneOf(
					rapid.SampledFrom([]int64{0, -1, 1, math.MaxInt64, math.MinInt64, 1700000000000}), rapid.Int64(),
				).Draw(t, "timestamp"),
				Key: drawBytes(t, "key"), Value: drawBytes(t, "value"),
			}
			k := fmt.Sprint(r.Topic, r.Partition)
			r.Offset = next[k] + rapid.SampledFrom([]int64{0, 0, 0, 1, 1000, 1 << 40}).Draw(t, "hole")
			next[k] = r.Offset + 1
			for range rapid.IntRange(0, 3).Draw(t, "headers") {
				r.Headers = append(r.Headers, record.Header{Key: drawBytes(t, "header key"), Value: drawBytes(t, "header value")})
			}
			records = append(records, r)
		}
		method := rapid.SampledFrom(methods).Draw(t, "compression")
		var sealing testing.T
		block := record.NewSealer(method).Seal(runsOf(&sealing, records))
		got, err := decode(block, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(grouped(records), got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
		summary, err := record.ParseSummary(block)
		if err != nil || summary.Records != int64(len(records)) {
			t.Fatalf("summary %+v, %v", summary, err)
		}
		only, err := decode(block, func(topic string) bool { return topic == "clicks" })
		if err != nil {
			t.Fatal(err)
		}
		var want []record.Record
		for _, r := range grouped(records) {
			if r.Topic == "clicks" {
				want = append(want, r)
			}
		}
		if diff := cmp.Diff(want, only, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("of one topic (-want +got):\n%s", diff)
		}
	})
}

func TestPoisonGoesThrough(t *testing.T) {
	large := make([]byte, 20<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(large)
	headers := make([]record.Header, 1000)
	for i := range headers {
		headers[i] = record.Header{Key: fmt.Appendf(nil, "k%d", i%7), Value: []byte("v")}
	}
	records := []record.Record{
		{Topic: "t", Offset: 3, Timestamp: 0},
		{Topic: "t", Offset: 4, Key: []byte{}, Value: []byte{}},
		{Topic: "t", Offset: 5, Value: []byte{0xff, 0xfe, 0}, Timestamp: math.MaxInt64},
		{Topic: "t", Offset: 6, Headers: headers},
		{Topic: "t", Offset: 7, Value: large},
		{Topic: "t", Offset: 8, Value: make([]byte, 30<<20)},
	}
	for _, method := range methods {
		t.Run(method.String(), func(t *testing.T) {
			block := record.NewSealer(method).Seal(runsOf(t, records))
			if method != record.None && len(block) > 40<<20 {
				t.Errorf("30 MiB of zeros did not shrink: the block has %d bytes", len(block))
			}
			var joiner record.Joiner
			parts := record.Split(block)
			for i, part := range parts {
				if len(part) > record.MaxEntry {
					t.Fatalf("part %d has %d bytes", i, len(part))
				}
				summary, err := record.ParseSummary(part)
				if err != nil || summary.Part != i || summary.Parts != len(parts) || summary.Records != 6 {
					t.Fatalf("part %d says %+v, %v", i, summary, err)
				}
				whole, done, err := joiner.Add(part)
				if err != nil || done != (i == len(parts)-1) {
					t.Fatalf("part %d: done %v, %v", i, done, err)
				}
				if done && !bytes.Equal(whole, block) {
					t.Fatal("the parts make another block")
				}
			}
			got, err := decode(block, nil)
			if err != nil {
				t.Fatal(err)
			}
			// reflect, not cmp: values of many MiB.
			if !reflect.DeepEqual(records, got) {
				t.Fatal("what was decoded is not what was sealed")
			}
		})
	}
}

func TestAppendKeepsOrder(t *testing.T) {
	var run record.Run
	run.Reset("t", record.TopicID{}, 0, 10)
	var order *record.OrderError
	if err := run.Append(&record.Record{Offset: 9}); !errors.As(err, &order) {
		t.Errorf("an offset below the base: %v", err)
	}
	for _, offset := range []int64{12, 15} {
		if err := run.Append(&record.Record{Offset: offset, Key: []byte("k"), Value: []byte("vv")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := run.Append(&record.Record{Offset: 15}); !errors.As(err, &order) {
		t.Errorf("an offset twice: %v", err)
	}
	want := record.Span{Topic: "t", Base: 10, First: 12, Last: 15, Records: 2, Bytes: 6}
	if diff := cmp.Diff(want, run.Span()); diff != "" {
		t.Errorf("span (-want +got):\n%s", diff)
	}
	if block := record.NewSealer(record.None).Seal([]*record.Run{new(record.Run)}); block != nil {
		t.Errorf("nothing was sealed as %x", block)
	}
}

func TestPartsThatDoNotBelongTogether(t *testing.T) {
	value := make([]byte, 3<<20)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(value)
	seal := func(offset int64) [][]byte {
		return record.Split(record.NewSealer(record.None).Seal(runsOf(t, []record.Record{{Topic: "t", Offset: offset, Value: value}})))
	}
	a, b := seal(1), seal(2)
	flipped := bytes.Clone(a[1])
	flipped[len(flipped)-1] ^= 1
	for name, parts := range map[string][][]byte{
		"begins in the middle": {a[1]},
		"leaves one out":       {a[0], a[2]},
		"of two blocks":        {a[0], b[1]},
		"one twice":            {a[0], a[1], a[1]},
		"damaged":              {a[0], flipped, a[2], a[3]},
	} {
		t.Run(name, func(t *testing.T) {
			var j record.Joiner
			var err error
			for i, part := range parts {
				var done bool
				if _, done, err = j.Add(part); done || (err != nil) != (i == len(parts)-1) {
					t.Fatalf("part %d: done %v, %v", i, done, err)
				}
			}
			if !errors.Is(err, record.ErrParts) {
				t.Errorf("got %v, want ErrParts", err)
			}
		})
	}
	var j record.Joiner
	for i, part := range append([][]byte{b[0], b[1]}, a...) {
		if _, done, err := j.Add(part); err != nil || done != (i == len(a)+1) {
			t.Errorf("begun anew, part %d: done %v, %v", i, done, err)
		}
	}
}

func TestAnotherVersionIsRefused(t *testing.T) {
	block := record.NewSealer(record.None).Seal(runsOf(t, []record.Record{{Topic: "t"}}))
	block[1]++
	if _, err := record.ParseSummary(block); !errors.Is(err, record.ErrVersion) {
		t.Errorf("got %v, want ErrVersion", err)
	}
}

func TestGolden(t *testing.T) {
	records := []record.Record{
		{Topic: "clicks", Partition: 1, Offset: 41, Timestamp: 1700000000000, Key: []byte("k"), Value: []byte("page|1|2|1")},
		{Topic: "clicks", Partition: 1, Offset: 43, Timestamp: 1699999999999, Value: []byte{}, Headers: []record.Header{{Key: []byte("h")}, {Key: []byte("h"), Value: []byte("v")}}},
		{Topic: "views", Partition: 0, Offset: 7, Timestamp: -1, Key: []byte{}, Value: bytes.Repeat([]byte("forebay "), 100)},
	}
	for _, method := range methods {
		path := filepath.Join("testdata", "block-v1-"+method.String()+".golden")
		block := record.NewSealer(method).Seal(runsOf(t, records))
		if *update {
			if err := os.WriteFile(path, block, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		kept, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decode(kept, nil)
		if err != nil {
			t.Fatalf("%s does not read any more: %v", path, err)
		}
		if diff := cmp.Diff(records, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
		if method == record.None && !bytes.Equal(block, kept) {
			t.Errorf("the format changed without a new version:\n%x\nwas\n%x", block, kept)
		}
	}
}

func TestBatchIDs(t *testing.T) {
	id := record.BatchID{Lane: 3, Seq: 42}
	if got := id.String(); got != "3-00000000000000000042" {
		t.Errorf("got %s", got)
	}
	for _, s := range []string{"3-00000000000000000042", "3-42"} {
		if got, err := record.ParseBatchID(s); err != nil || got != id {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "3", "-1", "3-0", "3--1", "x-1", "3-+1", "4294967296-1"} {
		if got, err := record.ParseBatchID(s); err == nil {
			t.Errorf("%q was taken for %v", s, got)
		}
	}
}
