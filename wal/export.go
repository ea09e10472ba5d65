package wal

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/hashicorp/raft"
)

// An export is a file with entries of one log, ascending, some of which may be missing; all
// integers little endian:
//
//	"FBWLEXPT" | version u32 = 1 | log id 16 bytes | CRC-32C of these 28 bytes u32
//	frames as in a segment: uvarint(length) frame …
//	0x00 | "FBWLXEND" | entries u64 | chain u32 | CRC-32C of these 20 bytes u32
//
// The chain is the one of a seal: over the CRCs of the entries, in order.
const (
	exportMagic   = "FBWLEXPT"
	exportEnd     = "FBWLXEND"
	exportVersion = 1
	exportHeader  = 8 + 4 + 16 + 4
	exportTrailer = 1 + 8 + 8 + 4 + 4
)

// ErrExport says that an export cannot be used: it is cut short, damaged, or none at all.
var ErrExport = errors.New("not a whole export of a log")

// ExportWriter writes an export. Not safe for concurrent use.
type ExportWriter struct {
	w       *bufio.Writer
	frame   []byte
	entries uint64
	last    uint64
	chain   uint32
}

// NewExport begins an export of the log logID, which is zero if it is not known.
func NewExport(w io.Writer, logID [16]byte) (*ExportWriter, error) {
	x := &ExportWriter{w: bufio.NewWriterSize(w, scanWindow)}
	b := binary.LittleEndian.AppendUint32([]byte(exportMagic), exportVersion)
	b = append(b, logID[:]...)
	_, err := x.w.Write(binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli())))
	return x, err
}

// Add appends an entry, behind those that were added.
func (x *ExportWriter) Add(e *Entry) error {
	if e.Index <= x.last {
		return fmt.Errorf("entry %d cannot follow entry %d", e.Index, x.last)
	}
	l := raft.Log{Index: e.Index, Term: e.Term, Type: e.Type, Data: e.Data, Extensions: e.Extensions}
	var crc uint32
	x.frame, crc = appendFrame(x.frame[:0], &l, syncMark{})
	if crc != e.CRC {
		return fmt.Errorf("entry %d has changed since it was read", e.Index)
	}
	var prefix [binary.MaxVarintLen64]byte
	if _, err := x.w.Write(prefix[:binary.PutUvarint(prefix[:], uint64(len(x.frame)))]); err != nil {
		return err
	}
	x.entries, x.last, x.chain = x.entries+1, e.Index, chainOn(x.chain, crc)
	_, err := x.w.Write(x.frame)
	return err
}

// Close ends the export; it neither syncs nor closes what it was written to.
func (x *ExportWriter) Close() error {
	b := binary.LittleEndian.AppendUint64([]byte(exportEnd), x.entries)
	b = binary.LittleEndian.AppendUint32(b, x.chain)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli()))
	if _, err := x.w.Write(append([]byte{0}, b...)); err != nil {
		return err
	}
	return x.w.Flush()
}

// Export is an export that was read and found whole. Close it.
type Export struct {
	// LogID is the log that it was taken from, zero when that was not known.
	LogID [16]byte
	// Runs are the entries that it holds.
	Runs []Run
	// Entries is how many these are.
	Entries uint64

	f     File
	index map[uint64]exported
}

// exported is where an entry lies in an export.
type exported struct {
	off  int64
	n    int
	term uint64
	crc  uint32
}

// OpenExport reads the export in path, and checks all of it. Errors wrap ErrExport, are a
// *VersionError, or what the system says.
func OpenExport(path string) (*Export, error) {
	f, err := osFiles{}.Open(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	x := &Export{f: f, index: map[uint64]exported{}}
	if err := x.read(path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return x, nil
}

// Close closes the file.
func (x *Export) Close() error { return x.f.Close() }

func (x *Export) read(path string) error {
	bad := func(what string, args ...any) error {
		return fmt.Errorf("%w: %s: %s", ErrExport, path, fmt.Sprintf(what, args...))
	}
	head := make([]byte, exportHeader)
	size, err := x.f.Size()
	if err != nil {
		return err
	}
	if size < exportHeader+exportTrailer {
		return bad("%d bytes are too few", size)
	}
	if _, err := x.f.ReadAt(head, 0); err != nil {
		return err
	}
	le := binary.LittleEndian
	if string(head[:8]) != exportMagic {
		return bad("it does not begin as an export does")
	}
	if v := le.Uint32(head[8:]); v != exportVersion {
		return &VersionError{File: path, Version: v, Known: exportVersion}
	}
	if crc32.Checksum(head[:28], castagnoli()) != le.Uint32(head[28:]) {
		return bad("the checksum of its header is wrong")
	}
	copy(x.LogID[:], head[12:])
	tail := make([]byte, exportTrailer)
	if _, err := x.f.ReadAt(tail, size-exportTrailer); err != nil {
		return err
	}
	zero := tail[0]
	if tail = tail[1:]; zero != 0 || string(tail[:8]) != exportEnd || crc32.Checksum(tail[:20], castagnoli()) != le.Uint32(tail[20:]) {
		return bad("it has no end: the writing of it was interrupted")
	}
	chain, err := x.frames(size - exportTrailer)
	if err != nil {
		return bad("%v", err)
	}
	if n, sum := le.Uint64(tail[8:]), le.Uint32(tail[16:]); n != x.Entries || sum != chain {
		return bad("%d entries with chain %08x, and it should be %d with %08x", x.Entries, chain, n, sum)
	}
	return nil
}

// frames reads the entries up to byte end.
func (x *Export) frames(end int64) (chain uint32, err error) {
	sc := newScanner(x.f, end, 0)
	sc.off = exportHeader
	for !sc.done() {
		at := sc.off
		if err := sc.follow(); err != nil {
			return 0, err
		}
		h, _, bad := sc.frame()
		if bad != nil {
			return 0, fmt.Errorf("byte %d: expected %s, found %s", bad.offset, bad.expected, bad.found)
		}
		x.index[h.index] = exported{off: at, n: int(sc.off - at), term: h.term, crc: h.crc}
		if n := len(x.Runs); n > 0 && x.Runs[n-1].Last+1 == h.index {
			x.Runs[n-1].Last = h.index
		} else {
			x.Runs = append(x.Runs, Run{h.index, h.index})
		}
		x.Entries++
	}
	return sc.chain, nil
}

// follow lets the next frame have any index from next on: entries may be missing.
func (s *scanner) follow() error {
	b, err := s.window(s.off, uvarintLen(headerSize+MaxEntry)+headerSize)
	if err != nil {
		return err
	}
	_, n, err := decodePrefix(b)
	if err != nil {
		return err
	}
	h, err := decodeHeader(b[n:])
	if err != nil {
		return err
	}
	if h.index < s.next {
		return fmt.Errorf("entry %d behind entry %d", h.index, s.next-1)
	}
	s.next = h.index
	return nil
}

// bytes gives the length prefix and the frame of an entry.
func (x *Export) bytes(e exported) ([]byte, error) {
	b := make([]byte, e.n)
	if got, err := x.f.ReadAt(b, e.off); got < e.n {
		return nil, err
	}
	return b, nil
}
