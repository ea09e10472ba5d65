package receiver

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"forebay/internal/record"
)

// TestBlocksThatAReaderTakes: what is gathered at once is sealed as so many blocks that
// neither a body nor a summary goes beyond what a reader takes, in order.
func TestBlocksThatAReaderTakes(t *testing.T) {
	run := func(topic string, partition int32, size int) *record.Run {
		var r record.Run
		r.Reset(topic, record.TopicID{}, partition, 0)
		if size > 0 {
			if err := r.Append(&record.Record{Value: make([]byte, size)}); err != nil {
				t.Fatal(err)
			}
		}
		return &r
	}
	for name, c := range map[string]struct {
		sizes         []int
		body, summary int
		want          []int // runs per block
	}{
		"none":                    {nil, 100, 1000, nil},
		"all in one":              {[]int{10, 20, 30}, 100, 1000, []int{3}},
		"empty ones cost nothing": {[]int{0, 90, 0, 0}, 100, 1000, []int{4}},
		"empty, then too much":    {[]int{0, 200, 1}, 100, 1000, []int{2, 1}},
		"bodies":                  {[]int{60, 60, 10, 60}, 100, 1000, []int{1, 2, 1}},
		"one that fills it":       {[]int{10, 93, 10}, 100, 1000, []int{1, 1, 1}},
		"summaries":               {[]int{1, 1, 1, 1, 1}, 1000, 2 * (spanBytes + 1), []int{2, 2, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			var runs []*record.Run
			for i, size := range c.sizes {
				runs = append(runs, run("t", int32(i), size))
			}
			var got []int
			rest := runs
			for len(rest) > 0 {
				n := together(rest, c.body, c.summary)
				got = append(got, n)
				rest = rest[n:]
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestVeryManyPartitionsInOneBlock: a block of 20,000 partitions had a summary that no
// reader took, and that Split panicked at.
func TestVeryManyPartitionsInOneBlock(t *testing.T) {
	var runs []*record.Run
	for i := range 20_000 {
		var r record.Run
		r.Reset(fmt.Sprintf("a topic whose name is of some length %08d", i), record.TopicID{}, 1<<30, 1<<60)
		if err := r.Append(&record.Record{Offset: 1<<60 + 1, Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
		runs = append(runs, &r)
	}
	codec, records := record.NewSealer(record.None), int64(0)
	for len(runs) > 0 {
		n := together(runs, record.MaxBody, maxSummary)
		for _, part := range record.Split(codec.Seal(runs[:n])) {
			sum, err := record.ParseSummary(part)
			if err != nil {
				t.Fatal(err)
			}
			if sum.Part == max(0, sum.Parts-1) {
				records += sum.Records
			}
		}
		runs = runs[n:]
	}
	if records != 20_000 {
		t.Errorf("%d records", records)
	}
}

// TestAHugeRecordBeginsItsRun: behind others in one run it could be beyond what a block
// holds, although it is not beyond it by itself.
func TestAHugeRecordBeginsItsRun(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 1, "a")
	recs := numbered("a", 1, 0, 40)
	recs[20].Headers = []kgo.RecordHeader{{Key: "h", Value: make([]byte, 5000)}}
	b.produce(recs...)
	l := newMemLog(t)
	cfg := b.config("a")
	cfg.BlockInterval = 50 * time.Millisecond
	r, err := New(cfg, l)
	if err != nil {
		t.Fatal(err)
	}
	r.huge = 4000
	serve(t, r)
	l.await("all", func() bool { return l.total() == 40 })
	onceInOrder(t, l, "a", 40)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.spans {
		if s.First < 20 && s.Last >= 20 {
			t.Errorf("the huge record came behind others, in offsets %d to %d", s.First, s.Last)
		}
	}
}
