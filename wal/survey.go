package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// survey is what a directory holds, by names, sizes, manifest and mark, before
// any entry was read. Taking it changes nothing.
type survey struct {
	files   Files
	p       paths
	fresh   bool // nothing is there yet
	charter charter
	seals   map[uint64]seal // by first
	sealed  int             // whole seals in the manifest, dead ones included
	lost    int             // seals that are not whole
	mark    mark            // of the charter's epoch, else zero
	synced  uint64          // highest entry known to be synced
	segs    []surveyed      // ascending, from charter.first on
	stale   []string        // names below charter.first: leftovers of a trim
	foreign []string        // names in the segments' directory that are none
	// markEpoch is the mark's epoch, 0 when there is no whole mark.
	markEpoch uint64
	damage    []*CorruptError
}

// surveyed is one segment of a survey.
type surveyed struct {
	first uint64
	size  int64
	seal  *seal
}

func segmentName(first uint64) string { return fmt.Sprintf("%020d", first) }

// relSegment is the path of a segment inside the log's directory.
func relSegment(first uint64) string { return filepath.Join(segmentsDir, segmentName(first)) }

func (p paths) segment(first uint64) string { return filepath.Join(p.segments, segmentName(first)) }

// parseSegment returns the index in a segment's name.
func parseSegment(name string) (uint64, bool) {
	if len(name) != 20 {
		return 0, false
	}
	first, err := strconv.ParseUint(name, 10, 64)
	return first, err == nil && first > 0
}

func (s *survey) hurt(file string, off int64, index uint64, expected, found string, err error) {
	s.damage = append(s.damage, &CorruptError{
		Dir: s.p.dir, Segment: file, Offset: off, Index: index, Expected: expected, Found: found, Err: err,
	})
}

// takeSurvey looks at a directory. Damage is collected, not returned as an
// error; errors are a newer version, and what the system refused.
func takeSurvey(files Files, p paths) (*survey, error) {
	s := &survey{files: files, p: p, seals: map[uint64]seal{}}
	// The mark comes first: what it says was synced before the rest was looked
	// at, so that a survey of a running log asks nothing that is yet to come.
	markBytes, err := readSmall(files, p.mark, slotArea)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the mark: %w", err)
	}
	haveMark := err == nil
	haveManifest, err := s.readManifest()
	if err != nil {
		return nil, err
	}
	names, err := files.List(p.segments)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing the segments: %w", err)
	}
	if !haveManifest && !haveMark && len(names) == 0 && len(s.damage) == 0 {
		s.fresh = true
		return s, nil
	}
	if s.charter.resetting {
		return s, nil
	}
	if !haveManifest && len(s.damage) == 0 {
		s.hurt(manifestName, -1, 0, "the manifest", "no such file", nil)
	}
	if err := s.readMark(markBytes, haveMark); err != nil {
		return nil, err
	}
	if err := s.readNames(names); err != nil {
		return nil, err
	}
	s.checkNames()
	return s, nil
}

func readSmall(files Files, path string, most int) ([]byte, error) {
	f, err := files.Open(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readUpTo(f, most)
}

func (s *survey) readManifest() (bool, error) {
	f, err := s.files.Open(s.p.manifest, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("opening the manifest: %w", err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return false, fmt.Errorf("reading the manifest: %w", err)
	}
	b, err := readUpTo(f, int(size))
	if err != nil {
		return false, fmt.Errorf("reading the manifest: %w", err)
	}
	c, seals, lost, err := decodeManifest(b, s.p.manifest)
	var newer *VersionError
	if errors.As(err, &newer) {
		return false, err
	}
	if err != nil {
		s.hurt(manifestName, 0, 0, "a manifest", err.Error(), nil)
		return true, nil
	}
	s.charter, s.lost, s.sealed, s.synced = c, lost, len(seals), c.synced
	for _, seal := range seals {
		if seal.first >= c.first {
			s.seals[seal.first] = seal
		}
	}
	return true, nil
}

func (s *survey) readMark(b []byte, have bool) error {
	if !have {
		s.hurt(markName, -1, 0, "the mark", "no such file", nil)
		return nil
	}
	m, err := decodeMarks(b, s.p.mark)
	var newer *VersionError
	if errors.As(err, &newer) {
		return err
	}
	if err != nil {
		s.hurt(markName, 0, 0, "a mark", err.Error(), nil)
		return nil
	}
	s.markEpoch = m.epoch
	switch {
	case s.charter.epoch == 0: // the manifest is damaged
	case m.epoch > s.charter.epoch:
		s.hurt(markName, 0, 0, fmt.Sprintf("a mark of epoch %d", s.charter.epoch), fmt.Sprintf("one of epoch %d", m.epoch), nil)
	case m.epoch == s.charter.epoch:
		s.mark, s.synced = m, max(s.synced, m.index)
	}
	return nil
}

func (s *survey) readNames(names []fs.DirEntry) error {
	for _, e := range names {
		first, ok := parseSegment(e.Name())
		if !ok || !e.Type().IsRegular() {
			s.foreign = append(s.foreign, e.Name())
			s.hurt(filepath.Join(segmentsDir, e.Name()), -1, 0, "nothing but segments in this directory", "a foreign file", nil)
			continue
		}
		if first < s.charter.first {
			s.stale = append(s.stale, e.Name())
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // trimmed by a running log since it was listed
		}
		if err != nil {
			return fmt.Errorf("reading the size of segment %s: %w", e.Name(), err)
		}
		sv := surveyed{first: first, size: info.Size()}
		if seal, ok := s.seals[first]; ok {
			sv.seal = &seal
		}
		s.segs = append(s.segs, sv)
	}
	return nil
}

// checkNames holds the names and sizes against manifest and mark.
func (s *survey) checkNames() {
	if len(s.segs) == 0 {
		s.hurt(relSegment(s.charter.first), -1, s.charter.first, "the log's first segment", "no segment at all", nil)
		return
	}
	if c := s.charter; c.epoch > 0 && s.segs[0].first != c.first {
		s.hurt(relSegment(c.first), -1, c.first, "the log's first segment", "no such file; the first is "+segmentName(s.segs[0].first), nil)
	}
	last := len(s.segs) - 1
	for i, sv := range s.segs {
		if sv.seal == nil {
			continue
		}
		if sv.size != sv.seal.size {
			at := min(sv.size, sv.seal.size)
			s.hurt(relSegment(sv.first), at, 0, fmt.Sprintf("a finished segment of %d bytes", sv.seal.size), fmt.Sprintf("%d bytes", sv.size), nil)
		}
		if i < last && s.segs[i+1].first != sv.seal.last+1 {
			s.hurt(relSegment(sv.seal.last+1), -1, sv.seal.last+1, "the segment after "+segmentName(sv.first),
				"no such file; the next is "+segmentName(s.segs[i+1].first), nil)
		}
	}
	if s.mark.segment > s.segs[last].first {
		s.hurt(relSegment(s.mark.segment), s.mark.offset, s.mark.index,
			fmt.Sprintf("the segment that was synced up to entry %d", s.mark.index), "no such file; the last is "+segmentName(s.segs[last].first), nil)
	}
}

// problem joins what was found into one error, the first place first.
func (s *survey) problem() error {
	if len(s.damage) == 0 {
		return nil
	}
	if more := len(s.damage) - 1; more > 0 {
		return fmt.Errorf("%w (and %d more)", s.damage[0], more)
	}
	return s.damage[0]
}

// Torn is a tail of bytes that were never acknowledged: what a kill or a power
// cut leaves of the last write. It is no damage: the next Open cuts it off.
type Torn struct {
	// Segment is the path of the last segment, inside the log's directory.
	Segment string
	// Offset is where the tail begins, Bytes how long it is, Index the entry
	// that would have been there.
	Offset, Bytes int64
	Index         uint64
	// Expected and Found say what is wrong with the first frame of it.
	Expected, Found string
}

// Error describes the tail, for readers that meet it.
func (t *Torn) Error() string {
	return fmt.Sprintf("torn tail of %d bytes in %s at byte %d, entry %d: expected %s, found %s; never acknowledged, the next start cuts it off",
		t.Bytes, t.Segment, t.Offset, t.Index, t.Expected, t.Found)
}

// scanned is what a full scan of one segment found.
type scanned struct {
	last    uint64 // first-1 when it holds no entry
	end     int64  // of the last whole frame
	chain   uint32
	lastCRC uint32
	term    uint64
	offsets []uint32
	torn    *Torn
	damage  *CorruptError
	// snapTerm is the term of the entry that was asked for, 0 when it is not here.
	snapTerm uint64
}

// scan reads a whole segment, checks all, and judges what is bad. term is the
// least that the first entry may have; ask is an entry whose term is wanted, and found is
// told of each whole entry, whose body is valid during the call.
func (s *survey) scan(i int, term, ask uint64, found func(h header, body []byte)) (scanned, error) {
	sv := s.segs[i]
	f, err := s.files.Open(s.p.segment(sv.first), os.O_RDONLY)
	if err != nil {
		return scanned{}, fmt.Errorf("opening segment %s: %w", segmentName(sv.first), err)
	}
	defer f.Close()
	sc := newScanner(f, sv.size, sv.first)
	sc.term = term
	out := scanned{last: sv.first - 1, term: term}
	for !sc.done() {
		at := sc.off
		h, body, bad := sc.frame()
		if bad != nil {
			out.torn, out.damage = s.judge(sc, bad, sv, i == len(s.segs)-1)
			break
		}
		found(h, body)
		out.offsets = append(out.offsets, uint32(at))
		out.last, out.end, out.chain, out.lastCRC, out.term = h.index, sc.off, sc.chain, h.crc, h.term
		if h.index == ask {
			out.snapTerm = h.term
		}
		if m := s.mark; m.segment == sv.first && m.index == h.index && out.damage == nil && (m.offset != sc.off || m.crc != h.crc) {
			out.damage = s.corrupt(sv.first, at, h.index, fmt.Sprintf("the synced entry that ends at byte %d with checksum %08x", m.offset, m.crc),
				fmt.Sprintf("one that ends at byte %d with checksum %08x", sc.off, h.crc), nil)
			break
		}
	}
	if out.damage == nil {
		out.damage = s.checkEnd(i, &out)
	}
	return out, nil
}

func (s *survey) corrupt(segment uint64, off int64, index uint64, expected, found string, err error) *CorruptError {
	return &CorruptError{Dir: s.p.dir, Segment: relSegment(segment), Offset: off, Index: index, Expected: expected, Found: found, Err: err}
}

// checkEnd holds the end of a scanned segment against its seal, its successor and the mark.
func (s *survey) checkEnd(i int, out *scanned) *CorruptError {
	sv := s.segs[i]
	if i == len(s.segs)-1 {
		if out.last < s.synced {
			found := fmt.Sprintf("the end of the log after entry %d", out.last)
			if out.torn != nil {
				found = out.torn.Found
			}
			return s.corrupt(sv.first, out.end, out.last+1, fmt.Sprintf("entries up to %d, which were synced", s.synced), found, nil)
		}
		return nil
	}
	if next := s.segs[i+1].first; out.last+1 != next {
		return s.corrupt(sv.first, out.end, out.last+1, fmt.Sprintf("entries up to %d, before the next segment", next-1),
			fmt.Sprintf("the end of the segment after entry %d", out.last), nil)
	}
	if sl := sv.seal; sl != nil && (sl.last != out.last || sl.chain != out.chain) {
		return s.corrupt(sv.first, -1, 0, fmt.Sprintf("entries up to %d with chain %08x, as it was finished", sl.last, sl.chain),
			fmt.Sprintf("entries up to %d with chain %08x", out.last, out.chain), nil)
	}
	return nil
}

// judge tells a torn tail from damage (DESIGN.md, "Torn, or corrupt?"). It moves sc.
func (s *survey) judge(sc *scanner, bad *flaw, sv surveyed, last bool) (*Torn, *CorruptError) {
	expected := bad.expected
	switch {
	case bad.err != nil:
	case !last:
		expected += " in a finished segment"
	case bad.index <= s.synced:
		expected += fmt.Sprintf(" (synced up to entry %d)", s.synced)
	default:
		start := sc.off
		for {
			h, at, ok := sc.resync()
			if !ok {
				return &Torn{
					Segment: relSegment(sv.first), Offset: start, Bytes: sv.size - start, Index: bad.index,
					Expected: bad.expected, Found: bad.found,
				}, nil
			}
			if h.mark.index >= bad.index {
				expected += fmt.Sprintf(" (synced before entry %d was written at byte %d)", h.index, at)
				break
			}
		}
	}
	return nil, s.corrupt(sv.first, bad.offset, bad.index, expected, strings.TrimSpace(bad.found), bad.err)
}
