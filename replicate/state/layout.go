package state

import (
	"errors"
	"fmt"
	"slices"

	"forebay/internal/record"
)

// ErrLayout says that entries of the log are not what the state says of them:
// one of the two is damaged.
var ErrLayout = errors.New("the log does not hold what the state says")

// Layout tells which log entries make up a batch. The batch is, in the order of
// their indexes, the whole blocks among FirstIndex to LastIndex that Skip does
// not list, and each large block in the place of its last part. The parts of
// large blocks are Early, and those among FirstIndex to LastIndex that Skip
// does not list: each of these belongs to a block that is complete in this
// batch. All other entries are to be left out.
type Layout struct {
	FirstIndex, LastIndex uint64
	// Skip are refused blocks and parts, parts of blocks that were given up,
	// and parts of blocks that a later batch holds; growing.
	Skip []uint64
	// Early are parts that came before an earlier cut; growing, all below
	// FirstIndex.
	Early []uint64
}

// Fetch gives the data of a log entry, or nil for an index that holds no entry
// of ours (those that belong to Raft). The bytes are used only until the next call.
type Fetch func(index uint64) ([]byte, error)

// Blocks reads the batch: it calls fn for each block, in order, with the index
// of its entry, or those of its parts. Both are valid only during the call. It
// holds one entry, and the parts of the large blocks that are not complete. An error of
// fetch or fn ends the reading and is returned as it is.
func (l Layout) Blocks(fetch Fetch, fn func(indexes []uint64, block []byte) error) error {
	r := layoutReader{fn: fn, joining: map[place]*joining{}}
	for _, i := range l.Early {
		if err := r.read(i, fetch); err != nil {
			return err
		}
	}
	skip := l.Skip
	for i := l.FirstIndex; i <= l.LastIndex; i++ {
		for len(skip) > 0 && skip[0] < i {
			skip = skip[1:]
		}
		if len(skip) > 0 && skip[0] == i {
			continue
		}
		if err := r.read(i, fetch); err != nil {
			return err
		}
	}
	for p := range r.joining {
		return fmt.Errorf("%w: a large block of %q/%d in entries %d to %d is not complete", ErrLayout, p.topic, p.partition, l.FirstIndex, l.LastIndex)
	}
	return nil
}

type place struct {
	topic     string
	partition int32
}

// joining is a large block that is being put together. The first of its
// partitions names it: no two unfinished ones have a partition in common.
type joining struct {
	indexes []uint64
	joiner  record.Joiner
}

type layoutReader struct {
	fn      func(indexes []uint64, block []byte) error
	joining map[place]*joining
	one     [1]uint64
}

func (r *layoutReader) read(index uint64, fetch Fetch) error {
	entry, err := fetch(index)
	if err != nil || len(entry) == 0 {
		return err
	}
	switch entry[0] {
	case record.TagBlock:
		r.one[0] = index
		return r.fn(r.one[:], entry)
	case record.TagPart:
		return r.join(index, entry)
	}
	return nil
}

func (r *layoutReader) join(index uint64, part []byte) error {
	sum, err := record.ParseSummary(part)
	if err != nil {
		return fmt.Errorf("%w: entry %d: %w", ErrLayout, index, err)
	}
	if len(sum.Spans) == 0 {
		return fmt.Errorf("%w: entry %d is a part without spans", ErrLayout, index)
	}
	at := place{sum.Spans[0].Topic, sum.Spans[0].Partition}
	j := r.joining[at]
	if j == nil {
		j = &joining{}
		r.joining[at] = j
	}
	j.indexes = append(j.indexes, index)
	block, done, err := j.joiner.Add(part)
	if err != nil {
		return fmt.Errorf("%w: entry %d: %w", ErrLayout, index, err)
	}
	if !done {
		return nil
	}
	delete(r.joining, at)
	return r.fn(j.indexes, block)
}

// Block reads the block that holds a parked record; other records may be in it.
// The block may alias what fetch gave.
func (r ParkedRef) Block(fetch Fetch) ([]byte, error) {
	var joiner record.Joiner
	var copies []byte
	for n, i := range r.Indexes {
		entry, err := fetch(i)
		if err != nil {
			return nil, err
		}
		if len(entry) == 0 {
			return nil, fmt.Errorf("%w: entry %d is empty", ErrLayout, i)
		}
		last := n == len(r.Indexes)-1
		switch {
		case r.Copied:
			e, err := Decode(entry)
			if err != nil {
				return nil, fmt.Errorf("%w: entry %d: %w", ErrLayout, i, err)
			}
			c, ok := e.(Copy)
			if !ok || c.ID != r.ID || int(c.Part) != n || int(c.Parts) != len(r.Indexes) {
				return nil, fmt.Errorf("%w: entry %d is not part %d of %d of a copy of parked record %d", ErrLayout, i, n, len(r.Indexes), r.ID)
			}
			if copies = append(copies, c.Data...); !last {
				continue
			}
			if castagnoli(copies) != c.Checksum {
				return nil, fmt.Errorf("%w: the copy of parked record %d in entries %d has another checksum", ErrLayout, r.ID, r.Indexes)
			}
			return copies, nil
		case entry[0] == record.TagBlock && len(r.Indexes) == 1:
			return entry, nil
		case entry[0] == record.TagPart:
			block, done, err := joiner.Add(entry)
			if err != nil {
				return nil, fmt.Errorf("%w: entry %d: %w", ErrLayout, i, err)
			}
			if done != last {
				return nil, fmt.Errorf("%w: entries %d are not the parts of one block", ErrLayout, r.Indexes)
			}
			if done {
				return slices.Clip(block), nil
			}
		default:
			return nil, fmt.Errorf("%w: entry %d holds no parked record", ErrLayout, i)
		}
	}
	return nil, fmt.Errorf("%w: parked record %d has no entries", ErrLayout, r.ID)
}
