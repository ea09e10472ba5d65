package replicate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// A snapshot file, all integers little endian:
//
//	magic "FBSNAP" | format u8 = 1 | flags u8
//	index u64 | term u64 | configuration index u64 | length u32 | configuration
//	data …
//	length of data u64 | CRC-32C of all before u32
//
// Flag bit 0: taken here, so the log on this node held everything up to index.
// Without it the snapshot was installed by a leader.
const (
	snapshotMagic   = "FBSNAP"
	snapshotFormat  = 1
	flagTakenHere   = 1 << 0
	snapshotFixed   = len(snapshotMagic) + 2 + 3*8 + 4
	snapshotTrailer = 8 + 4
	// maxConfiguration bounds the encoded membership: some hundred bytes a voter.
	maxConfiguration = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// SnapshotError says that a snapshot file cannot be used.
type SnapshotError struct {
	Path string
	What string
	// Newer is set when a newer version of the program wrote the file.
	Newer bool
}

// Error implements error.
func (e *SnapshotError) Error() string { return fmt.Sprintf("snapshot %s: %s", e.Path, e.What) }

// snapshotInfo is one snapshot on disk.
type snapshotInfo struct {
	meta      raft.SnapshotMeta
	path      string
	takenHere bool
	// dataAt is where the data begins in the file.
	dataAt int64
}

func snapshotID(term, index uint64) string { return fmt.Sprintf("%020d-%020d", term, index) }

// appendSnapshotHeader encodes all that comes before the data.
func appendSnapshotHeader(dst []byte, meta *raft.SnapshotMeta, takenHere bool) []byte {
	var flags byte
	if takenHere {
		flags |= flagTakenHere
	}
	conf := raft.EncodeConfiguration(meta.Configuration)
	dst = append(dst, snapshotMagic...)
	dst = append(dst, snapshotFormat, flags)
	dst = binary.LittleEndian.AppendUint64(dst, meta.Index)
	dst = binary.LittleEndian.AppendUint64(dst, meta.Term)
	dst = binary.LittleEndian.AppendUint64(dst, meta.ConfigurationIndex)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(conf)))
	return append(dst, conf...)
}

// readSnapshot reads a file's header and verifies all of it.
func readSnapshot(path string) (*snapshotInfo, error) { return readSnapshotFile(path, true) }

// readSnapshotHead reads a file's header and holds its size and name against it. What the file holds
// is not verified, and the configuration not told.
func readSnapshotHead(path string) (*snapshotInfo, error) { return readSnapshotFile(path, false) }

func readSnapshotFile(path string, whole bool) (*snapshotInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	bad := func(format string, args ...any) (*snapshotInfo, error) {
		return nil, &SnapshotError{Path: path, What: fmt.Sprintf(format, args...)}
	}
	stat, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := stat.Size()
	if size < int64(snapshotFixed+snapshotTrailer) {
		return bad("%d bytes are too few", size)
	}
	fixed := make([]byte, snapshotFixed)
	if _, err := io.ReadFull(f, fixed); err != nil {
		return nil, err
	}
	if string(fixed[:len(snapshotMagic)]) != snapshotMagic {
		return bad("it does not begin as a snapshot does")
	}
	fields := fixed[len(snapshotMagic):]
	if fields[0] != snapshotFormat {
		what := fmt.Sprintf("its format is %d, and this program reads %d: it was written by a newer version", fields[0], snapshotFormat)
		return nil, &SnapshotError{Path: path, What: what, Newer: true}
	}
	confLen := int64(binary.LittleEndian.Uint32(fields[26:]))
	dataAt := int64(snapshotFixed) + confLen
	dataLen := size - dataAt - int64(snapshotTrailer)
	if confLen > maxConfiguration || dataLen < 0 {
		return bad("it is cut short")
	}
	trailer := make([]byte, snapshotTrailer)
	if _, err := f.ReadAt(trailer, size-int64(snapshotTrailer)); err != nil {
		return nil, err
	}
	if got := binary.LittleEndian.Uint64(trailer); got != uint64(dataLen) {
		return bad("it says that it holds %d bytes, and has %d", got, dataLen)
	}
	info := &snapshotInfo{path: path, takenHere: fields[1]&flagTakenHere != 0, dataAt: dataAt}
	info.meta = raft.SnapshotMeta{
		Version:            raft.SnapshotVersionMax,
		Index:              binary.LittleEndian.Uint64(fields[2:]),
		Term:               binary.LittleEndian.Uint64(fields[10:]),
		ConfigurationIndex: binary.LittleEndian.Uint64(fields[18:]),
		Size:               dataLen,
	}
	info.meta.ID = snapshotID(info.meta.Term, info.meta.Index)
	if whole {
		conf, sum, err := checksum(f, fixed, confLen, dataLen+8)
		if err != nil {
			return nil, err
		}
		if binary.LittleEndian.Uint32(trailer[8:]) != sum {
			return bad("its checksum is wrong")
		}
		// The checksum was right, so the library's decoder, which panics, is safe.
		info.meta.Configuration = raft.DecodeConfiguration(conf)
	}
	if want := info.meta.ID + snapshotSuffix; filepath.Base(path) != want {
		return bad("it holds %s", want)
	}
	return info, nil
}

// checksum reads what follows the fixed fields: the configuration, which it returns, and rest bytes.
func checksum(r io.Reader, fixed []byte, confLen, rest int64) (conf []byte, sum uint32, err error) {
	h := crc32.New(castagnoli)
	h.Write(fixed)
	conf = make([]byte, confLen)
	if _, err := io.ReadFull(io.TeeReader(r, h), conf); err != nil {
		return nil, 0, err
	}
	if _, err := io.CopyN(h, r, rest); err != nil {
		return nil, 0, err
	}
	return conf, h.Sum32(), nil
}

// snapshotSink writes a snapshot under a temporary name. It implements
// raft.SnapshotSink; Close makes it durable under its own name.
type snapshotSink struct {
	store *snapshotStore
	info  snapshotInfo
	file  *os.File
	sum   hash.Hash32
	err   error
	open  bool
	// Of one taken here: how many were installed before.
	own      bool
	installs uint64
}

// ID implements raft.SnapshotSink.
func (s *snapshotSink) ID() string { return s.info.meta.ID }

// takenAfter marks a snapshot as this node's own.
func (s *snapshotSink) takenAfter(installs uint64) { s.own, s.installs = true, installs }

// overtaken is called with the store's lock held.
func (s *snapshotSink) overtaken() bool { return s.own && s.installs != s.store.installs }

// begin writes the header, once it is known where the snapshot comes from.
func (s *snapshotSink) begin(takenHere bool) error {
	s.open = true
	s.info.takenHere = takenHere
	header := appendSnapshotHeader(nil, &s.info.meta, takenHere)
	s.info.dataAt = int64(len(header))
	return s.write(header)
}

func (s *snapshotSink) write(p []byte) error {
	if s.err != nil {
		return s.err
	}
	s.sum.Write(p)
	_, s.err = s.file.Write(p)
	return s.err
}

// Write implements io.Writer.
func (s *snapshotSink) Write(p []byte) (int, error) {
	if !s.open {
		if err := s.begin(false); err != nil {
			return 0, err
		}
	}
	if err := s.write(p); err != nil {
		return 0, err
	}
	s.info.meta.Size += int64(len(p))
	return len(p), nil
}

// Close writes the trailer, syncs, renames, syncs the directory.
func (s *snapshotSink) Close() error {
	if s.err != nil {
		return errors.Join(s.err, s.Cancel())
	}
	if _, err := s.Write(nil); err != nil {
		return errors.Join(err, s.Cancel())
	}
	trailer := binary.LittleEndian.AppendUint64(nil, uint64(s.info.meta.Size))
	s.sum.Write(trailer)
	trailer = binary.LittleEndian.AppendUint32(trailer, s.sum.Sum32())
	tmp := s.file.Name()
	_, err := s.file.Write(trailer)
	err = errors.Join(err, s.file.Sync(), s.file.Close())
	if err == nil {
		err = s.store.rename(tmp, s)
	}
	if err == nil {
		err = syncDir(filepath.Dir(tmp))
	}
	if err != nil {
		os.Remove(tmp)
		return fmt.Errorf("writing snapshot %s: %w", s.info.path, err)
	}
	if err := s.store.add(s); err != nil {
		return fmt.Errorf("writing snapshot %s: %w", s.info.path, err)
	}
	return nil
}

// Cancel implements raft.SnapshotSink.
func (s *snapshotSink) Cancel() error {
	return errors.Join(s.file.Close(), os.Remove(s.file.Name()))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
