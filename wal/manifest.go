package wal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"sync"
)

const (
	manifestMagic = "FBWLSEGS"
	manifestSize  = 72
	sealSize      = 32
	// sealSyncEvery bounds how many segments an open must scan because a power
	// cut took their seals.
	sealSyncEvery = 16
	// deadSeals is how many seals of segments that are gone are kept before the
	// manifest is written anew.
	deadSeals = 4096
)

// seal describes a finished segment.
type seal struct {
	first, last uint64
	size        int64
	chain       uint32
}

// charter is the manifest's header: what the log is.
type charter struct {
	seq       uint64
	epoch     uint64 // rises with each cut of the end and each reset
	first     uint64 // name of the first segment
	prevIndex uint64 // the entry before the beginning, of which only this is known
	prevTerm  uint64
	synced    uint64 // the log's last entry when the epoch began
	resetting bool   // a reset was begun: everything in the directory goes
}

func (c *charter) encode(b []byte) {
	le := binary.LittleEndian
	copy(b, manifestMagic)
	le.PutUint32(b[8:], formatVersion)
	le.PutUint64(b[12:], c.seq)
	le.PutUint32(b[20:], 0)
	if c.resetting {
		le.PutUint32(b[20:], 1)
	}
	le.PutUint64(b[24:], c.epoch)
	le.PutUint64(b[32:], c.first)
	le.PutUint64(b[40:], c.prevIndex)
	le.PutUint64(b[48:], c.prevTerm)
	le.PutUint64(b[56:], c.synced)
	putSlot(b[:manifestSize])
}

func (s *seal) encode(b []byte) {
	le := binary.LittleEndian
	le.PutUint64(b, s.first)
	le.PutUint64(b[8:], s.last)
	le.PutUint64(b[16:], uint64(s.size))
	le.PutUint32(b[24:], s.chain)
	le.PutUint32(b[28:], crc32.Checksum(b[:28], castagnoli()))
}

// decodeManifest returns the newest header and all whole seals, in the order of
// the file. lost counts seals that are not whole: they can be made again.
func decodeManifest(b []byte, path string) (c charter, seals []seal, lost int, err error) {
	slot, err := newestSlot(b, manifestSize, manifestMagic, path)
	if err != nil {
		return charter{}, nil, 0, err
	}
	if slot == nil {
		return charter{}, nil, 0, fmt.Errorf("neither of its two headers is whole")
	}
	le := binary.LittleEndian
	c = charter{
		seq: le.Uint64(slot[12:]), resetting: le.Uint32(slot[20:])&1 != 0, epoch: le.Uint64(slot[24:]),
		first: le.Uint64(slot[32:]), prevIndex: le.Uint64(slot[40:]), prevTerm: le.Uint64(slot[48:]), synced: le.Uint64(slot[56:]),
	}
	if c.first == 0 || c.epoch == 0 {
		return charter{}, nil, 0, fmt.Errorf("its header begins the log at entry %d in epoch %d", c.first, c.epoch)
	}
	for at := slotArea; at < len(b); at += sealSize {
		if at+sealSize > len(b) {
			lost++
			break
		}
		rec := b[at : at+sealSize]
		if crc32.Checksum(rec[:28], castagnoli()) != le.Uint32(rec[28:]) {
			lost++
			continue
		}
		seals = append(seals, seal{le.Uint64(rec), le.Uint64(rec[8:]), int64(le.Uint64(rec[16:])), le.Uint32(rec[24:])})
	}
	return c, seals, lost, nil
}

// manifest keeps the file of that name. It is safe for concurrent use: a
// segment that ends and a trim may meet here.
type manifest struct {
	files Files
	p     paths

	mu       sync.Mutex
	f        File
	charter  charter
	seals    []seal // those of live segments, ascending
	records  int    // seals in the file, dead ones included
	unsynced int    // seals appended since the last sync
}

// appendSeal records a finished segment.
func (m *manifest) appendSeal(s seal) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b [sealSize]byte
	s.encode(b[:])
	if _, err := m.f.WriteAt(b[:], slotArea+int64(m.records)*sealSize); err != nil {
		return err
	}
	m.records++
	m.seals = append(m.seals, s)
	if m.unsynced++; m.unsynced < sealSyncEvery {
		return nil
	}
	m.unsynced = 0
	return m.f.Sync()
}

// setFirst moves the log's first segment, in place and durably.
func (m *manifest) setFirst(first uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.charter
	c.first = first
	c.prevIndex, c.prevTerm = 0, 0
	c.seq++
	b := make([]byte, manifestSize)
	c.encode(b)
	if _, err := m.f.WriteAt(b, int64(c.seq%2)*slotSize); err != nil {
		return err
	}
	if err := m.f.Sync(); err != nil {
		return err
	}
	m.charter, m.unsynced = c, 0
	m.seals = slices.DeleteFunc(m.seals, func(s seal) bool { return s.first < first })
	return nil
}

// crowded tells that most of the file is about segments that are gone.
func (m *manifest) crowded() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.records > deadSeals && m.records > 2*len(m.seals)
}

// replace writes the whole manifest anew, durably: all of the change or nothing
// of it is there afterwards. change is given copies.
func (m *manifest) replace(change func(c *charter, seals []seal) []seal) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.charter
	seals := change(&c, slices.Clone(m.seals))
	c.seq++
	b := make([]byte, slotArea+len(seals)*sealSize)
	c.encode(b[c.seq%2*slotSize:])
	for i := range seals {
		seals[i].encode(b[slotArea+i*sealSize:])
	}
	f, err := writeFile(m.files, m.p.dir, m.p.manifest, b)
	if err != nil {
		return err
	}
	old := m.f
	m.f, m.charter, m.seals, m.records, m.unsynced = f, c, seals, len(seals), 0
	if old != nil {
		return old.Close()
	}
	return nil
}

func (m *manifest) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.f == nil {
		return nil
	}
	return m.f.Close()
}
