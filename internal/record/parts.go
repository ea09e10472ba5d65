package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Split divides a block larger than MaxEntry into parts that are not, each with
// the whole block's summary. A block that is not larger comes back alone, as it is.
// The block must be one that Seal made, and its summary at most maxSummary bytes.
func Split(block []byte) [][]byte {
	if len(block) <= MaxEntry {
		return [][]byte{block}
	}
	h, w := parseHeader(block)
	if w.err != nil || h.Parts != 0 {
		panic("record: Split of what is no block")
	}
	summary := block[h.summary:w.at]
	if len(summary) > maxSummary {
		panic(fmt.Sprintf("record: a summary of %d spans and %d bytes leaves a part no room", len(h.Spans), len(summary)))
	}
	room := MaxEntry - maxPartHead - len(summary)
	count := (len(block) + room - 1) / room
	checksum := crc32.Checksum(block, castagnoli)
	parts := make([][]byte, 0, count)
	for i := range count {
		piece := block[i*room : min((i+1)*room, len(block))]
		part := make([]byte, 0, maxPartHead+len(summary)+len(piece))
		part = append(part, TagPart, blockVersion)
		part = binary.AppendUvarint(part, uint64(count))
		part = binary.AppendUvarint(part, uint64(i))
		part = binary.AppendUvarint(part, uint64(len(block)))
		part = binary.BigEndian.AppendUint32(part, checksum)
		part = append(part, summary...)
		parts = append(parts, append(part, piece...))
	}
	return parts
}

const (
	// maxPartHead is the most that stands before the summary of a part.
	maxPartHead = 2 + 3*binary.MaxVarintLen64 + 4
	// maxSummary bounds a summary that parts repeat, in bytes, so that at least a
	// quarter of each is block.
	maxSummary = MaxEntry*3/4 - maxPartHead
)

// ErrParts says that a part does not continue the ones before it.
var ErrParts = errors.New("parts do not belong together")

// Joiner puts a block together from its parts. The zero value is ready. Not safe
// for concurrent use.
type Joiner struct {
	next, parts int
	total       int64
	checksum    uint32
	summary     []byte // that all parts, and the block, have in common
	block       []byte
}

// Reset forgets the parts that were added.
func (j *Joiner) Reset() { *j = Joiner{} }

// Add takes the next part, of which it keeps nothing. With the last one it gives
// the block, which agrees with the checksum and the summary of every part; the
// block is the caller's. After an error or a complete block the Joiner is as new.
// A part 0 begins anew whatever came before. Errors are ErrParts, *FormatError and
// ErrVersion.
func (j *Joiner) Add(part []byte) (block []byte, done bool, err error) {
	if err := j.add(part); err != nil {
		j.Reset()
		return nil, false, err
	}
	if j.next < j.parts {
		return nil, false, nil
	}
	whole := *j
	j.Reset()
	if !whole.agrees() {
		return nil, false, ErrParts
	}
	return whole.block, true, nil
}

func (j *Joiner) add(part []byte) error {
	h, w := parseHeader(part)
	if w.err != nil {
		return w.err
	}
	if h.Parts == 0 {
		return &FormatError{What: "a whole block where a part is wanted"}
	}
	if w.left() == 0 {
		return &FormatError{What: "a part without a piece of its block", Offset: w.at}
	}
	summary := part[h.summary:w.at]
	if h.Part == 0 {
		*j = Joiner{parts: h.Parts, total: h.total, checksum: h.checksum, summary: bytes.Clone(summary)}
	}
	if h.Part != j.next || h.Parts != j.parts || h.total != j.total || h.checksum != j.checksum ||
		!bytes.Equal(summary, j.summary) || int64(len(j.block)+w.left()) > j.total {
		return ErrParts
	}
	// Grown by what has really come, not by what the first part promises.
	j.block = append(j.block, w.data[w.at:]...)
	j.next++
	return nil
}

// agrees tells whether the block is what its parts said.
func (j *Joiner) agrees() bool {
	if int64(len(j.block)) != j.total || crc32.Checksum(j.block, castagnoli) != j.checksum {
		return false
	}
	h, w := parseHeader(j.block)
	return w.err == nil && h.Parts == 0 && bytes.Equal(j.block[h.summary:w.at], j.summary)
}
