package state

import (
	"fmt"

	"forebay/internal/record"
)

// Bounds of what an entry may carry into the state.
const (
	// MaxReason is the longest reason of a refusal that is kept, in bytes; a
	// longer one is clipped.
	MaxReason = 1024
	// MaxKey bounds the name of an administrative value, in bytes.
	MaxKey = 256
	// MaxValue bounds an administrative value, in bytes.
	MaxValue = 64 << 10
	// MaxVoid bounds how many batches one entry makes without records.
	MaxVoid = 100_000
	// MaxValues bounds how many administrative values there are.
	MaxValues = 1024
)

// The first byte of each entry that is not a block or a part.
const (
	tagForm byte = 0x10 + iota
	tagBegin
	tagBases
	tagAdvance
	tagTopicChange
	tagCut
	tagSinkAdd
	tagSinkRemove
	tagSinkPause
	tagDone
	tagRefuse
	tagCopy
	tagDiscard
	tagRelease
	tagSet
	tagVoid
)

// entryVersion is the second byte of each of them.
const entryVersion = 1

// Encode gives the bytes of an entry: one of the structs of entries.go, by
// value. It panics on anything else. Use [EncodeAll] for kinds that carry a list.
func Encode(e any) []byte {
	tag, fields := fieldsOf(e)
	if fields == nil {
		panic(fmt.Sprintf("state: %T is no entry", e))
	}
	c := coder{buf: append(make([]byte, 0, 128), tag, entryVersion)}
	fields(&c)
	return c.buf
}

// EncodeAll is Encode for lists that may not fit one entry: it spreads Bases,
// Refuse and Discard over as many entries as keep each within
// record.MaxEntry. They are to be appended in order; each holds on its own.
func EncodeAll(e any) [][]byte {
	b := Encode(e)
	if len(b) <= record.MaxEntry {
		return [][]byte{b}
	}
	var left, right any
	switch e := e.(type) {
	case Bases:
		l, r := e, e
		l.Bases, r.Bases = halves(e.Bases)
		left, right = l, r
	case Refuse:
		l, r := e, e
		l.Refusals, r.Refusals = halves(e.Refusals)
		left, right = l, r
	case Discard:
		l, r := e, e
		l.IDs, r.IDs = halves(e.IDs)
		left, right = l, r
	}
	if left == nil {
		return [][]byte{b}
	}
	return append(EncodeAll(left), EncodeAll(right)...)
}

func halves[T any](s []T) (left, right []T) { return s[:len(s)/2], s[len(s)/2:] }

// copyPiece leaves room for the fields around the data of a Copy.
const copyPiece = record.MaxEntry - 64

// Copies gives the entries, in order, that copy a parked record: block is a
// block that holds just the record.
func Copies(id uint64, block []byte) [][]byte {
	parts := max(1, (len(block)+copyPiece-1)/copyPiece)
	out := make([][]byte, 0, parts)
	sum := castagnoli(block)
	for i := range parts {
		data := block[i*copyPiece : min(len(block), (i+1)*copyPiece)]
		out = append(out, Encode(Copy{ID: id, Part: uint32(i), Parts: uint32(parts), Checksum: sum, Data: data}))
	}
	return out
}

// Decode reads an entry of any kind: it gives one of the structs of entries.go,
// or a record.Summary for a block or a part of one. Nothing that it gives
// aliases the entry, but what record.ParseSummary says of its own.
func Decode(entry []byte) (any, error) {
	if len(entry) < 2 {
		return nil, &FormatError{What: "entry without a kind and a version", Offset: len(entry)}
	}
	if isBlock(entry) {
		sum, err := record.ParseSummary(entry)
		if err != nil {
			return nil, err
		}
		return sum, nil
	}
	read := readerOf(entry[0])
	if read == nil {
		return nil, fmt.Errorf("%w: entry kind 0x%02x", ErrVersion, entry[0])
	}
	if entry[1] != entryVersion {
		return nil, fmt.Errorf("%w: entry kind 0x%02x in version %d", ErrVersion, entry[0], entry[1])
	}
	c := coder{buf: entry, off: 2, reading: true}
	v := read(&c)
	if c.err == nil && c.off != len(entry) {
		c.fail("bytes after the entry")
	}
	if c.err != nil {
		return nil, c.err
	}
	return v, nil
}

func isBlock(entry []byte) bool {
	return entry[0] == record.TagBlock || entry[0] == record.TagPart
}
