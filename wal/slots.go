package wal

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"path/filepath"
)

// Both small files of the log keep one value in two slots that are written in
// turn, so that a write that is torn leaves the one before.
const (
	slotSize  = 512
	slotArea  = 2 * slotSize
	noVersion = math.MaxUint32
)

// The names in a log's directory.
const (
	lockName     = "lock"
	markName     = "mark"
	manifestName = "segments"
	segmentsDir  = "log"
	tempSuffix   = ".tmp"
)

// paths are the places in a log's directory.
type paths struct{ dir, lock, mark, manifest, segments string }

func pathsOf(dir string) paths {
	return paths{
		dir: dir, lock: filepath.Join(dir, lockName), mark: filepath.Join(dir, markName),
		manifest: filepath.Join(dir, manifestName), segments: filepath.Join(dir, segmentsDir),
	}
}

// putSlot completes a slot's value: the sum over all before goes into its last
// four bytes.
func putSlot(b []byte) {
	n := len(b) - 4
	binary.LittleEndian.PutUint32(b[n:], crc32.Checksum(b[:n], castagnoli()))
}

// slotVersion tells which version a slot's value has: 0 when it is none of the
// kind, noVersion when it is of version 1 but damaged.
func slotVersion(b []byte, size int, magic string) uint32 {
	if len(b) < size || string(b[:len(magic)]) != magic {
		return 0
	}
	v := binary.LittleEndian.Uint32(b[len(magic):])
	sum := crc32.Checksum(b[:size-4], castagnoli())
	switch {
	case v == formatVersion && sum == binary.LittleEndian.Uint32(b[size-4:]):
		return v
	case v == formatVersion:
		return noVersion
	}
	return v
}

// newestSlot finds the valid slot with the highest sequence number, which is
// the 8 bytes behind magic and version. It returns a *VersionError when there is
// no valid slot but one of a newer version, and nil, nil when there is none at all.
func newestSlot(b []byte, size int, magic, path string) ([]byte, error) {
	var best []byte
	var newer uint32
	for at := 0; at < slotArea && at+size <= len(b); at += slotSize {
		slot := b[at : at+size]
		v := slotVersion(slot, size, magic)
		switch {
		case v == formatVersion:
			if best == nil || slotSeq(slot, magic) > slotSeq(best, magic) {
				best = slot
			}
		case v > formatVersion && v != noVersion:
			newer = v
		}
	}
	if best == nil && newer > 0 {
		return nil, &VersionError{File: path, Version: newer, Known: formatVersion}
	}
	return best, nil
}

func slotSeq(b []byte, magic string) uint64 {
	return binary.LittleEndian.Uint64(b[len(magic)+4:])
}
