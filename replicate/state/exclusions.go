package state

import (
	"cmp"
	"slices"

	"forebay/internal/record"
)

// exclusions is a set of records, kept as runs of offsets: a sink that refuses
// all of a batch costs no more than one that refuses a record of it.
type exclusions struct {
	places  []exclusion // by topic and partition
	records int
}

type exclusion struct {
	topic     string
	partition int32
	runs      []run // growing, not touching each other
}

func (x *exclusions) find(topic string, partition int32) (int, bool) {
	return slices.BinarySearchFunc(x.places, topic, func(e exclusion, topic string) int {
		return cmp.Or(cmp.Compare(e.topic, topic), cmp.Compare(e.partition, partition))
	})
}

// add puts a record into the set; false when it is there already.
func (x *exclusions) add(id record.RecordID) bool {
	i, found := x.find(id.Topic, id.Partition)
	if !found {
		x.places = slices.Insert(x.places, i, exclusion{topic: id.Topic, partition: id.Partition})
	}
	e := &x.places[i]
	// at is the first run that ends at the offset or after it.
	at, _ := slices.BinarySearchFunc(e.runs, id.Offset, func(r run, offset int64) int { return cmp.Compare(r.last, offset) })
	if at < len(e.runs) && e.runs[at].first <= id.Offset {
		return false
	}
	left := at > 0 && e.runs[at-1].last == id.Offset-1
	right := at < len(e.runs) && e.runs[at].first == id.Offset+1
	switch {
	case left && right:
		e.runs[at-1].last = e.runs[at].last
		e.runs = slices.Delete(e.runs, at, at+1)
	case left:
		e.runs[at-1].last++
	case right:
		e.runs[at].first--
	default:
		e.runs = slices.Insert(e.runs, at, run{id.Offset, id.Offset})
	}
	x.records++
	return true
}

// list gives the records in order.
func (x *exclusions) list() []record.RecordID {
	if x.records == 0 {
		return nil
	}
	out := make([]record.RecordID, 0, x.records)
	for _, e := range x.places {
		for _, r := range e.runs {
			for offset := r.first; offset <= r.last; offset++ {
				out = append(out, record.RecordID{Topic: e.topic, Partition: e.partition, Offset: offset})
			}
		}
	}
	return out
}
