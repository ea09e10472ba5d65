package receiver

import (
	"reflect"
	"testing"
	"unsafe"

	"github.com/IBM/sarama"
)

// batch describes one batch of a fetch response.
type batch struct {
	first, last int64
	records     []int64 // offsets; nil: none
	txn         bool
	control     string // "commit", "abort"
	producer    int64
	partial     bool
}

func response(end, lso int64, aborted [][2]int64, batches ...batch) *sarama.FetchResponseBlock {
	block := &sarama.FetchResponseBlock{HighWaterMarkOffset: end, LastStableOffset: lso}
	for _, a := range aborted {
		block.AbortedTransactions = append(block.AbortedTransactions, &sarama.AbortedTransaction{ProducerID: a[0], FirstOffset: a[1]})
	}
	for _, b := range batches {
		rb := &sarama.RecordBatch{
			FirstOffset: b.first, LastOffsetDelta: int32(b.last - b.first), Control: b.control != "",
			IsTransactional: b.txn || b.control != "", ProducerID: b.producer, PartialTrailingRecord: b.partial,
		}
		for _, o := range b.records {
			rb.Records = append(rb.Records, &sarama.Record{OffsetDelta: o - b.first})
		}
		switch b.control {
		case "abort":
			rb.Records = []*sarama.Record{{Key: []byte{0, 0, 0, 0}}}
		case "commit":
			rb.Records = []*sarama.Record{{Key: []byte{0, 0, 0, 1}}}
		}
		block.RecordsSet = append(block.RecordsSet, &sarama.Records{RecordBatch: rb})
	}
	return block
}

// TestHolesAtAPartitionsEnd walks responses over what no reader gets, and not
// one step further.
func TestHolesAtAPartitionsEnd(t *testing.T) {
	for name, c := range map[string]struct {
		block *sarama.FetchResponseBlock
		want  int64 // from 10
	}{
		"a commit marker":                {response(11, 11, nil, batch{first: 10, last: 10, control: "commit"}), 11},
		"a record":                       {response(11, 11, nil, batch{first: 10, last: 10, records: []int64{10}}), 10},
		"a marker, then a record":        {response(12, 12, nil, batch{first: 10, last: 10, control: "commit"}, batch{first: 11, last: 11, records: []int64{11}}), 11},
		"aborted, with its marker":       {response(14, 14, [][2]int64{{7, 10}}, batch{first: 10, last: 12, records: []int64{10, 11, 12}, txn: true, producer: 7}, batch{first: 13, last: 13, control: "abort", producer: 7}), 14},
		"committed after aborted":        {response(16, 16, [][2]int64{{7, 10}}, batch{first: 10, last: 12, records: []int64{10}, txn: true, producer: 7}, batch{first: 13, last: 13, control: "abort", producer: 7}, batch{first: 14, last: 14, records: []int64{14}, txn: true, producer: 7}), 14},
		"aborted later, not now":         {response(20, 20, [][2]int64{{7, 15}}, batch{first: 10, last: 12, records: []int64{10}, txn: true, producer: 7}), 10},
		"another producer's":             {response(12, 12, [][2]int64{{7, 9}}, batch{first: 10, last: 10, records: []int64{10}, producer: 8, txn: true}), 10},
		"not transactional, same id":     {response(12, 12, [][2]int64{{7, 9}}, batch{first: 10, last: 10, records: []int64{10}, producer: 7}), 10},
		"open transaction":               {response(20, 10, nil, batch{first: 10, last: 10, records: []int64{10}, txn: true, producer: 7}), 10},
		"compacted tail of a batch":      {response(15, 15, nil, batch{first: 5, last: 14, records: []int64{5, 9}}), 15},
		"compacted, but not all":         {response(15, 15, nil, batch{first: 5, last: 14, records: []int64{5, 12}}), 10},
		"compacted between batches":      {response(31, 31, nil, batch{first: 30, last: 30, control: "commit"}), 31},
		"nothing at all proves nothing":  {response(20, 20, nil), 10},
		"a partial batch proves nothing": {response(20, 20, nil, batch{first: 10, last: 10, control: "commit"}, batch{first: 11, partial: true}), 11},
		"not past the last stable":       {response(20, 11, nil, batch{first: 10, last: 12, control: "commit"}), 11},
		"an older batch":                 {response(11, 11, nil, batch{first: 3, last: 9, records: []int64{3, 9}}), 10},
		"legacy messages":                {&sarama.FetchResponseBlock{HighWaterMarkOffset: 20, LastStableOffset: 20, RecordsSet: []*sarama.Records{{MsgSet: &sarama.MessageSet{}}}}, 10},
	} {
		t.Run(name, func(t *testing.T) {
			if got := passable(c.block, 10, true); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
	aborted := response(14, 14, [][2]int64{{7, 10}}, batch{first: 10, last: 12, records: []int64{10}, txn: true, producer: 7})
	if got := passable(aborted, 10, false); got != 10 {
		t.Errorf("read_uncommitted passed an aborted record, to %d", got)
	}
}

// TestAnEndOfEmptiedBatches reads what sarama keeps to itself of an answer whose
// batches compaction has emptied; it fails when sarama keeps it no longer.
func TestAnEndOfEmptiedBatches(t *testing.T) {
	emptied := func(behind int64, block *sarama.FetchResponseBlock) *sarama.FetchResponseBlock {
		field := reflect.ValueOf(block).Elem().FieldByName("recordsNextOffset")
		if !field.IsValid() || field.Type() != reflect.TypeFor[*int64]() {
			t.Fatal("this sarama has no FetchResponseBlock.recordsNextOffset of *int64")
		}
		reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem().Set(reflect.ValueOf(&behind))
		return block
	}
	for name, c := range map[string]struct {
		block *sarama.FetchResponseBlock
		want  int64 // from 10
	}{
		"all of the end":              {emptied(20, response(20, 20, nil)), 20},
		"a part of it":                {emptied(15, response(20, 20, nil)), 15},
		"beyond an open transaction":  {emptied(15, response(20, 12, nil)), 12},
		"before where we are":         {emptied(8, response(20, 20, nil)), 10},
		"behind a record":             {emptied(20, response(20, 20, nil, batch{first: 10, last: 10, records: []int64{10}})), 10},
		"behind a marker":             {emptied(20, response(20, 20, nil, batch{first: 10, last: 10, control: "abort"})), 11},
		"behind what came only a bit": {emptied(20, response(20, 20, nil, batch{first: 10, last: 19, partial: true})), 10},
		"no batch at all":             {response(20, 20, nil), 10},
	} {
		if got := passable(c.block, 10, true); got != c.want {
			t.Errorf("%s: passable to %d, want %d", name, got, c.want)
		}
	}
}
