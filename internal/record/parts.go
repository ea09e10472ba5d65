package record

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Split divides a block larger than MaxEntry into parts that are not, each with
// the whole block's summary. The block must be one that Seal made.
func Split(block []byte) [][]byte {
	h, w, err := parseHeader(block)
	if err != nil || h.Parts != 0 {
		panic("record: Split of what is no block")
	}
	// What stands between the compression byte and the body goes into every part.
	summary := block[3:w.at]
	const most = 2 + 4*binary.MaxVarintLen64 + 4
	room := MaxEntry - most - len(summary)
	if room < MaxEntry/4 {
		panic("record: a summary fills a whole entry")
	}
	count := (len(block) + room - 1) / room
	checksum := crc32.Checksum(block, castagnoli)
	parts := make([][]byte, 0, count)
	for i := range count {
		chunk := block[i*room : min((i+1)*room, len(block))]
		part := make([]byte, 0, most+len(summary)+len(chunk))
		part = append(part, TagPart, blockVersion)
		part = binary.AppendUvarint(part, uint64(count))
		part = binary.AppendUvarint(part, uint64(i))
		part = binary.AppendUvarint(part, uint64(len(block)))
		part = binary.BigEndian.AppendUint32(part, checksum)
		part = append(part, summary...)
		parts = append(parts, append(part, chunk...))
	}
	return parts
}

// ErrParts says that a part does not continue the ones before it.
var ErrParts = errors.New("parts do not belong together")

// Joiner puts a block together from its parts. The zero value is ready. Not safe
// for concurrent use.
type Joiner struct {
	next, parts int
	total       int64
	checksum    uint32
	block       []byte
}

// Reset forgets the parts that were added.
func (j *Joiner) Reset() { *j = Joiner{} }

// Add takes the next part. With the last one it gives the block, whose checksum
// agrees with every part's; the block is the caller's. After an error or a
// complete block the Joiner is as new. A part 0 begins anew whatever came before.
func (j *Joiner) Add(part []byte) (block []byte, done bool, err error) {
	h, w, err := parseHeader(part)
	switch {
	case err != nil:
		j.Reset()
		return nil, false, err
	case h.Parts == 0:
		j.Reset()
		return nil, false, &FormatError{What: "a whole block where a part is wanted"}
	case h.Part == 0:
		*j = Joiner{parts: h.Parts, total: h.total, checksum: h.checksum}
	case h.Part != j.next || h.Parts != j.parts || h.total != j.total || h.checksum != j.checksum:
		j.Reset()
		return nil, false, ErrParts
	}
	// Grown by what has really come, not by what the first part promises.
	j.block = append(j.block, w.data[w.at:]...)
	j.next++
	if int64(len(j.block)) > j.total {
		j.Reset()
		return nil, false, ErrParts
	}
	if j.next < j.parts {
		return nil, false, nil
	}
	whole := j.block
	agrees := int64(len(whole)) == j.total && crc32.Checksum(whole, castagnoli) == j.checksum
	j.Reset()
	if !agrees {
		return nil, false, ErrParts
	}
	return whole, true, nil
}
