package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"

	"github.com/hashicorp/raft"
)

// Reader reads a log without owning it: of a stopped node, or, with what was
// synced by then, of a running one. It takes no lock and changes nothing. What a running node
// writes after Inspect is not seen; if it cuts or empties its log meanwhile, reading
// ends with ErrChanged. A tail that is torn may then be a write under way.
// A Reader needs no closing, and is not safe for concurrent use.
type Reader struct {
	s *survey
}

// SegmentInfo is one segment as its name and the manifest describe it.
type SegmentInfo struct {
	// Name is the file's name, First the first entry in it.
	Name  string
	First uint64
	// Last is its last entry; 0 if that is only known by reading it (see Sealed).
	Last uint64
	// Bytes is its size.
	Bytes int64
	// Sealed tells that it is finished and described in the manifest.
	Sealed bool
}

// Entry is one entry with its place. Data and Extensions are valid until the
// next one is taken.
type Entry struct {
	Index, Term      uint64
	Type             raft.LogType
	Data, Extensions []byte
	// CRC is the CRC-32C over what is replicated: equal on all replicas.
	CRC uint32
	// Segment is the first entry of the segment, Offset the byte in it where the entry begins.
	Segment uint64
	Offset  int64
}

// Inspect looks at the log in dir. Damage to names, sizes, manifest and mark does
// not keep it from reading the rest: see Damage. Errors are *VersionError,
// fs.ErrNotExist if there is no log at all, and what the system says.
func Inspect(dir string) (*Reader, error) {
	if sw, err := readSwap(osFiles{}, pathsOf(dir)); err != nil || sw != nil {
		if err == nil {
			err = ErrUnfinished
		}
		return nil, fmt.Errorf("inspecting the log in %s: %w", dir, err)
	}
	s, err := takeSurvey(osFiles{}, pathsOf(dir))
	// A running node may have trimmed between two looks: only what is wrong twice
	// with the same manifest is wrong.
	for tries := 0; err == nil && len(s.damage) > 0 && tries < 10; tries++ {
		seq := s.charter.seq
		if s, err = takeSurvey(osFiles{}, pathsOf(dir)); err == nil && s.charter.seq == seq {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("inspecting the log in %s: %w", dir, err)
	}
	if s.fresh {
		return nil, fmt.Errorf("inspecting the log in %s: there is none: %w", dir, fs.ErrNotExist)
	}
	return &Reader{s: s}, nil
}

// First is the entry that the log's first segment begins with. Entries from here
// on may be deleted already for the running node, and still be read.
func (r *Reader) First() uint64 { return r.s.charter.first }

// Synced is the last entry that is known to be synced: everything up to it must
// be there.
func (r *Reader) Synced() uint64 { return r.s.synced }

// Damage is what is wrong with the directory, before any entry was read.
func (r *Reader) Damage() []*CorruptError { return r.s.damage }

// Segments lists the segments, ascending.
func (r *Reader) Segments() []SegmentInfo {
	infos := make([]SegmentInfo, 0, len(r.s.segs))
	for i, sv := range r.s.segs {
		info := SegmentInfo{Name: segmentName(sv.first), First: sv.first, Bytes: sv.size}
		if sv.seal != nil {
			info.Last, info.Sealed = sv.seal.last, true
		} else if i+1 < len(r.s.segs) {
			info.Last = r.s.segs[i+1].first - 1
		}
		infos = append(infos, info)
	}
	return infos
}

// Entries walks over the entries from index from on, checking each; segments
// below are not read. It ends after the first error: *CorruptError for damage, *Torn for a torn tail,
// ErrChanged, or what the system says.
func (r *Reader) Entries(from uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for i, sv := range r.s.segs {
			if i+1 < len(r.s.segs) && r.s.segs[i+1].first <= from {
				continue
			}
			if !r.entriesOf(i, sv, from, yield) {
				return
			}
		}
	}
}

// entriesOf walks over one segment, and tells whether to go on.
func (r *Reader) entriesOf(i int, sv surveyed, from uint64, yield func(Entry, error) bool) bool {
	f, err := r.open(sv)
	if err != nil {
		yield(Entry{}, err)
		return false
	}
	if f == nil {
		return true
	}
	defer f.Close()
	sc := newScanner(f, sv.size, sv.first)
	for !sc.done() {
		at := sc.off
		h, body, bad := sc.frame()
		if bad != nil {
			yield(Entry{}, r.judge(sc, bad, i))
			return false
		}
		if h.index < from {
			continue
		}
		var e raft.Log
		h.entry(body, &e)
		if !yield(Entry{
			Index: e.Index, Term: e.Term, Type: e.Type, Data: e.Data, Extensions: e.Extensions,
			CRC: h.crc, Segment: sv.first, Offset: at,
		}, nil) {
			return false
		}
	}
	if damage := r.s.checkEnd(i, &scanned{last: sc.next - 1, end: sc.off, chain: sc.chain}); damage != nil {
		yield(Entry{}, r.changedOr(damage))
		return false
	}
	return true
}

// open opens a segment; it returns nil if a running node has trimmed it meanwhile.
func (r *Reader) open(sv surveyed) (File, error) {
	f, err := r.s.files.Open(r.s.p.segment(sv.first), os.O_RDONLY)
	if err == nil {
		return f, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, r.s.corrupt(sv.first, -1, sv.first, "a segment that can be opened", err.Error(), err)
	}
	now, again := takeSurvey(r.s.files, r.s.p)
	switch {
	case again != nil:
		return nil, again
	case now.charter.epoch != r.s.charter.epoch:
		return nil, ErrChanged
	case now.charter.first > sv.first:
		return nil, nil
	}
	return nil, r.s.corrupt(sv.first, -1, sv.first, "a segment that was there a moment ago", err.Error(), err)
}

// judge tells torn from damaged and both from a log that was changed meanwhile.
func (r *Reader) judge(sc *scanner, bad *flaw, i int) error {
	torn, damage := r.s.judge(sc, bad, r.s.segs[i], i == len(r.s.segs)-1)
	if torn != nil {
		return torn
	}
	return r.changedOr(damage)
}

// changedOr returns ErrChanged if the log was cut or emptied since Inspect, and
// else the damage.
func (r *Reader) changedOr(damage *CorruptError) error {
	if now, err := takeSurvey(r.s.files, r.s.p); err == nil && now.charter.epoch != r.s.charter.epoch {
		return ErrChanged
	}
	return damage
}
