package wal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/bits"

	"github.com/hashicorp/raft"
)

const (
	// MaxEntry is the largest entry that is stored, extensions and data together, in bytes.
	// The gateway's own entries are far smaller; this bounds what a reader allocates.
	MaxEntry = 64 << 20

	headerSize   = 64
	frameVersion = 1

	magic0, magic1 = 0xF0, 0xB7
)

// syncMark says what was synced when a frame was written: the last entry, where
// in its segment it ends, and its CRC.
type syncMark struct {
	index  uint64
	offset int64
	crc    uint32
}

// header is the fixed part of a frame.
type header struct {
	kind            raft.LogType
	extLen, dataLen uint32
	index, term     uint64
	crc             uint32
	mark            syncMark
	partial         uint32 // CRC over the header's replicated fields, to be continued over the body
}

// bodyLen is the number of bytes after the header.
func (h *header) bodyLen() int { return int(h.extLen) + int(h.dataLen) }

// castagnoli returns the table of CRC-32C; hash/crc32 keeps one and hands it out.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// uvarintLen is the number of bytes of the library's length prefix.
func uvarintLen(x uint64) int { return (bits.Len64(x|1) + 6) / 7 }

// diskSize is what an entry with a body of n bytes takes in a segment.
func diskSize(n int) int64 {
	payload := headerSize + n
	return int64(uvarintLen(uint64(payload)) + payload)
}

// appendFrame appends the frame of e to dst, and returns also its entry CRC.
func appendFrame(dst []byte, e *raft.Log, m syncMark) ([]byte, uint32) {
	var h [headerSize]byte
	le := binary.LittleEndian
	h[0], h[1], h[2], h[3] = magic0, magic1, frameVersion, byte(e.Type)
	le.PutUint32(h[4:], uint32(len(e.Extensions)))
	le.PutUint32(h[8:], uint32(len(e.Data)))
	le.PutUint64(h[12:], e.Index)
	le.PutUint64(h[20:], e.Term)
	crc := crc32.Update(0, castagnoli(), h[3:28])
	crc = crc32.Update(crc, castagnoli(), e.Extensions)
	crc = crc32.Update(crc, castagnoli(), e.Data)
	le.PutUint32(h[28:], crc)
	le.PutUint64(h[32:], m.index)
	le.PutUint64(h[40:], uint64(m.offset))
	le.PutUint32(h[48:], m.crc)
	le.PutUint32(h[60:], crc32.Checksum(h[:60], castagnoli()))
	dst = append(dst, h[:]...)
	dst = append(dst, e.Extensions...)
	return append(dst, e.Data...), crc
}

// frameError says what is wrong with a frame.
type frameError struct{ expected, found string }

func (e *frameError) Error() string { return "expected " + e.expected + ", found " + e.found }

// decodeHeader checks and decodes the first headerSize bytes of b.
func decodeHeader(b []byte) (header, error) {
	if len(b) < headerSize {
		return header{}, &frameError{fmt.Sprintf("a header of %d bytes", headerSize), fmt.Sprintf("%d bytes", len(b))}
	}
	if b[0] != magic0 || b[1] != magic1 {
		return header{}, &frameError{fmt.Sprintf("a frame (%02x%02x)", magic0, magic1), fmt.Sprintf("bytes %02x%02x", b[0], b[1])}
	}
	le := binary.LittleEndian
	want, got := le.Uint32(b[60:]), crc32.Checksum(b[:60], castagnoli())
	if want != got {
		return header{}, &frameError{fmt.Sprintf("a header with checksum %08x", want), fmt.Sprintf("checksum %08x", got)}
	}
	if b[2] != frameVersion {
		return header{}, &frameError{fmt.Sprintf("frame version %d", frameVersion), fmt.Sprintf("version %d", b[2])}
	}
	h := header{
		kind: raft.LogType(b[3]), extLen: le.Uint32(b[4:]), dataLen: le.Uint32(b[8:]),
		index: le.Uint64(b[12:]), term: le.Uint64(b[20:]), crc: le.Uint32(b[28:]),
		mark:    syncMark{le.Uint64(b[32:]), int64(le.Uint64(b[40:])), le.Uint32(b[48:])},
		partial: crc32.Update(0, castagnoli(), b[3:28]),
	}
	if n := uint64(h.extLen) + uint64(h.dataLen); n > MaxEntry {
		return header{}, &frameError{fmt.Sprintf("at most %d bytes", MaxEntry), fmt.Sprintf("a length of %d", n)}
	}
	return h, nil
}

// checkBody verifies the entry CRC over the frame's extensions and data.
func (h *header) checkBody(body []byte) error {
	if len(body) != h.bodyLen() {
		return &frameError{fmt.Sprintf("%d bytes of data", h.bodyLen()), fmt.Sprintf("%d bytes", len(body))}
	}
	if got := crc32.Update(h.partial, castagnoli(), body); got != h.crc {
		return &frameError{fmt.Sprintf("an entry with checksum %08x", h.crc), fmt.Sprintf("checksum %08x", got)}
	}
	return nil
}

// entry fills out from a header and its checked body, which it aliases. Absent
// extensions and data are nil.
func (h *header) entry(body []byte, out *raft.Log) {
	*out = raft.Log{Index: h.index, Term: h.term, Type: h.kind}
	if h.extLen > 0 {
		out.Extensions = body[:h.extLen:h.extLen]
	}
	if h.dataLen > 0 {
		out.Data = body[h.extLen:]
	}
}

// decodePrefix reads the library's length prefix and requires what our frames
// have: at least a header, at most the largest entry, in its shortest form.
func decodePrefix(b []byte) (length, n int, err error) {
	size, n := binary.Uvarint(b)
	switch {
	case n == 0:
		return 0, 0, &frameError{"the length of a frame", "the end of the file"}
	case n < 0 || size > headerSize+MaxEntry:
		return 0, 0, &frameError{fmt.Sprintf("a length up to %d", headerSize+MaxEntry), "a longer one"}
	case size < headerSize:
		return 0, 0, &frameError{fmt.Sprintf("a length of at least %d", headerSize), fmt.Sprintf("length %d", size)}
	case n != uvarintLen(size):
		return 0, 0, &frameError{"a length in its shortest form", fmt.Sprintf("one of %d bytes", n)}
	}
	return int(size), n, nil
}

// chainOn continues a segment's chain with one entry's CRC.
func chainOn(chain, crc uint32) uint32 {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], crc)
	return crc32.Update(chain, castagnoli(), b[:])
}

// findMagic returns the position of the next possible header in b, -1 if there is none.
func findMagic(b []byte) int { return bytes.Index(b, []byte{magic0, magic1}) }
