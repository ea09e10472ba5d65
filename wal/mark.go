package wal

import (
	"encoding/binary"
	"fmt"
)

// formatVersion is the version of everything in the directory. A reader of
// another one touches nothing.
const formatVersion = 1

const (
	markMagic = "FBWLMARK"
	markSize  = 64
)

// mark is what was last synced: entry index ends at offset of the segment that
// begins with entry segment, and has the entry CRC crc. It belongs to one epoch
// of the manifest.
type mark struct {
	seq     uint64
	epoch   uint64
	index   uint64
	segment uint64
	offset  int64
	crc     uint32
}

func (m *mark) encode(b []byte) {
	le := binary.LittleEndian
	copy(b, markMagic)
	le.PutUint32(b[8:], formatVersion)
	le.PutUint64(b[12:], m.seq)
	le.PutUint64(b[20:], m.epoch)
	le.PutUint64(b[28:], m.index)
	le.PutUint64(b[36:], m.segment)
	le.PutUint64(b[44:], uint64(m.offset))
	le.PutUint32(b[52:], m.crc)
	putSlot(b[:markSize])
}

// decodeMarks returns the newest valid mark of a mark file's bytes.
func decodeMarks(b []byte, path string) (mark, error) {
	slot, err := newestSlot(b, markSize, markMagic, path)
	if err != nil {
		return mark{}, err
	}
	if slot == nil {
		return mark{}, fmt.Errorf("neither of its two marks is whole")
	}
	le := binary.LittleEndian
	return mark{
		seq: le.Uint64(slot[12:]), epoch: le.Uint64(slot[20:]), index: le.Uint64(slot[28:]),
		segment: le.Uint64(slot[36:]), offset: int64(le.Uint64(slot[44:])), crc: le.Uint32(slot[52:]),
	}, nil
}

// newMarkFile is the content of a new mark file: one slot, of epoch 0, which is
// nobody's.
func newMarkFile() []byte {
	b := make([]byte, slotArea)
	(&mark{seq: 1}).encode(b[slotSize:])
	return b
}

// markFile writes marks. Not safe for concurrent use: the writer owns it.
type markFile struct {
	f   File
	seq uint64
	buf [markSize]byte
}

// write puts m into the older slot. It does not sync.
func (mf *markFile) write(m mark) error {
	mf.seq++
	m.seq = mf.seq
	m.encode(mf.buf[:])
	_, err := mf.f.WriteAt(mf.buf[:], int64(m.seq%2)*slotSize)
	return err
}
