package wal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/tidwall/wal"
)

// complete fills in the defaults.
func (cfg *Config) complete() error {
	if cfg.Dir == "" {
		return errors.New("wal: Dir is not set")
	}
	if cfg.SegmentSize == 0 {
		cfg.SegmentSize = DefaultSegmentSize
	}
	if cfg.SegmentSize < minSegmentSize || cfg.SegmentSize > maxSegmentSize {
		return fmt.Errorf("wal: SegmentSize is %d, it must be %d to %d", cfg.SegmentSize, minSegmentSize, maxSegmentSize)
	}
	if cfg.RingBytes == 0 {
		cfg.RingBytes = DefaultRingBytes
	}
	if cfg.LockWait == 0 {
		cfg.LockWait = DefaultLockWait
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Files == nil {
		cfg.Files = osFiles{}
	}
	return nil
}

// Open opens the log in cfg.Dir, or makes one, and repairs what a kill or a
// power cut left: it cuts off a torn tail, and ends what was half done. Errors:
// ErrInUse (wrapped) when another process holds the directory, *CorruptError for
// damage and *VersionError for a newer format, both before anything was changed.
func Open(cfg Config) (*Log, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	l := &Log{
		cfg: cfg, files: cfg.Files, p: pathsOf(cfg.Dir), log: cfg.Logger,
		lib: nopLibrary{}, batch: new(wal.Batch), ring: ring{limit: cfg.RingBytes},
		failure:    failure{done: make(chan struct{}), report: cfg.OnFailure},
		trimWanted: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	if err := l.open(); err != nil {
		// The error says it all; what is open is only let go.
		_ = l.release()
		l.metrics.unregister()
		return nil, fmt.Errorf("opening the log in %s: %w", cfg.Dir, err)
	}
	l.watchdog.start(cfg.StallTimeout, l.stalled)
	l.trimmer.Go(l.trimLoop)
	return l, nil
}

func (l *Log) open() error {
	if err := l.files.MkdirAll(l.p.dir); err != nil {
		return fmt.Errorf("making the directory: %w", err)
	}
	var err error
	if l.lock, err = lockDir(l.p.lock, l.cfg.LockWait); err != nil {
		return err
	}
	if l.metrics, err = newMetrics(l.cfg.Registerer, l.cfg.Lane, l); err != nil {
		return err
	}
	if sw, err := readSwap(l.files, l.p); err != nil {
		return err
	} else if sw != nil {
		return ErrUnfinished
	}
	s, err := takeSurvey(l.files, l.p)
	if err != nil {
		return err
	}
	if s.fresh && l.cfg.SnapshotTaken && l.cfg.SnapshotIndex > 0 {
		return l.lost("no log at all")
	}
	if s.fresh || s.charter.resetting {
		if s, err = l.begin(s); err != nil {
			return err
		}
	}
	f, err := l.examine(s)
	if err != nil {
		return err
	}
	if end := max(f.tail.last, s.charter.first-1); l.cfg.SnapshotTaken && end < l.cfg.SnapshotIndex {
		return l.lost(fmt.Sprintf("a log that ends with entry %d", end))
	}
	// Until here nothing was changed.
	if err := l.adopt(s, f); err != nil {
		return err
	}
	l.applied.Store(l.cfg.SnapshotIndex)
	if l.outdated(f) {
		l.log.Warn("wal ends before the newest snapshot and is emptied", "dir", l.p.dir,
			"last", l.last, "snapshot", l.cfg.SnapshotIndex)
		return l.reset(termed{l.cfg.SnapshotIndex, l.cfg.SnapshotTerm})
	}
	return l.openLibrary()
}

// lost is the refusal of a log that does not reach up to a snapshot taken from it.
func (l *Log) lost(found string) error {
	return &CorruptError{
		Dir: l.p.dir, Offset: -1, Index: l.cfg.SnapshotIndex, Found: found,
		Expected: fmt.Sprintf("entries up to %d, which a snapshot was taken of on this node", l.cfg.SnapshotIndex),
	}
}

// outdated tells that the newest snapshot makes the log void: the log ends
// below it, or has another entry in its place.
func (l *Log) outdated(f *findings) bool {
	return l.last < l.cfg.SnapshotIndex ||
		l.cfg.SnapshotTerm > 0 && f.snapTerm > 0 && f.snapTerm != l.cfg.SnapshotTerm
}

// begin makes a new log, or ends a reset that was begun, and surveys the result.
func (l *Log) begin(s *survey) (*survey, error) {
	before := termed{l.cfg.SnapshotIndex, l.cfg.SnapshotTerm}
	if s.charter.resetting {
		before = termed{s.charter.prevIndex, s.charter.prevTerm}
	}
	if err := l.files.MkdirAll(l.p.segments); err != nil {
		return nil, fmt.Errorf("making the directory of segments: %w", err)
	}
	err := l.files.SyncDir(filepath.Dir(l.p.dir))
	if err == nil {
		err = l.files.SyncDir(l.p.dir)
	}
	if err != nil {
		return nil, fmt.Errorf("syncing the directory: %w", err)
	}
	l.manifest = &manifest{files: l.files, p: l.p, charter: s.charter}
	if err := l.openMark(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("opening the mark: %w", err)
	}
	tail, err := l.resetFiles(before)
	if err != nil {
		return nil, fmt.Errorf("beginning the log: %w", err)
	}
	err = errors.Join(tail.release(), l.manifest.close(), l.marks.f.Close())
	l.manifest, l.marks = nil, nil
	if err != nil {
		return nil, fmt.Errorf("beginning the log: %w", err)
	}
	return takeSurvey(l.files, l.p)
}

// openMark opens the mark file and goes on with its sequence.
func (l *Log) openMark() error {
	f, err := l.files.Open(l.p.mark, os.O_RDWR)
	if err != nil {
		return err
	}
	b, err := readUpTo(f, slotArea)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	// A mark that cannot be read was judged by the survey, or is of a log that is being reset.
	m, _ := decodeMarks(b, l.p.mark)
	l.marks = &markFile{f: f, seq: m.seq}
	return nil
}

// findings is what the scans of an open found.
type findings struct {
	tail     scanned
	seals    []seal // of all segments but the last, ascending
	remade   int    // seals that were made again
	snapTerm uint64
}

// examine scans what an open must, and returns damage as an error.
func (l *Log) examine(s *survey) (*findings, error) {
	if err := s.problem(); err != nil {
		return nil, err
	}
	snap := l.cfg.SnapshotIndex
	if s.charter.first > snap+1 {
		return nil, s.corrupt(s.charter.first, -1, snap+1, fmt.Sprintf("entry %d, the first after the newest snapshot", snap+1),
			fmt.Sprintf("a log that begins with entry %d (is a snapshot missing?)", s.charter.first), nil)
	}
	f := &findings{}
	term := s.charter.prevTerm
	known := func(i int) bool {
		return i < len(s.segs)-1 && s.segs[i].seal != nil && s.segs[i].seal.last < max(snap, 1)
	}
	if ahead, ok := l.files.(readAheader); ok {
		for i, sv := range s.segs {
			if !known(i) {
				ahead.readAhead(l.p.segment(sv.first))
			}
		}
	}
	for i, sv := range s.segs {
		tail := i == len(s.segs)-1
		if known(i) {
			f.seals = append(f.seals, *sv.seal)
			continue
		}
		sc, err := s.scan(i, term, snap, l.keepStart)
		if err != nil {
			return nil, err
		}
		if sc.damage != nil {
			return nil, sc.damage
		}
		term = sc.term
		f.snapTerm = max(f.snapTerm, sc.snapTerm)
		if tail {
			f.tail = sc
			break
		}
		if sv.seal == nil {
			f.remade++
		}
		f.seals = append(f.seals, seal{sv.first, sc.last, sv.size, sc.chain})
	}
	return f, nil
}

// keepStart keeps what ReadStart is to give.
func (l *Log) keepStart(h header, body []byte) {
	if l.cfg.KeepStart != nil && h.index > l.cfg.SnapshotIndex {
		l.starts.add(h, body, l.cfg.KeepStart)
	}
}

// adopt makes the directory what the findings say, and the log what the directory is.
func (l *Log) adopt(s *survey, f *findings) error {
	if err := l.tidy(s); err != nil {
		return fmt.Errorf("removing leftovers: %w", err)
	}
	tailFirst := s.segs[len(s.segs)-1].first
	file, err := l.files.Open(l.p.segment(tailFirst), os.O_RDWR)
	if err != nil {
		return fmt.Errorf("opening the last segment, is it writable?: %w", err)
	}
	tail := &segment{
		id: l.newID(), first: tailFirst, last: f.tail.last, size: f.tail.end, file: newHandle(file),
		offsets: f.tail.offsets, chain: f.tail.chain, lastCRC: f.tail.lastCRC,
	}
	for _, sl := range f.seals {
		l.segs = append(l.segs, &segment{id: l.newID(), first: sl.first, last: sl.last, size: sl.size, before: l.bytes.Load()})
		l.bytes.Add(sl.size)
	}
	tail.before = l.bytes.Load()
	l.segs, l.active = append(l.segs, tail), tail
	l.bytes.Add(tail.size)
	l.first, l.last = s.charter.first, tail.last
	l.prev = termed{s.charter.prevIndex, s.charter.prevTerm}
	if err := l.repairTail(s, f, tail); err != nil {
		return fmt.Errorf("repairing the last segment: %w", err)
	}
	if err := l.adoptManifest(s, f, tailFirst); err != nil {
		return fmt.Errorf("opening the manifest: %w", err)
	}
	if err := l.openMark(); err != nil {
		return fmt.Errorf("opening the mark: %w", err)
	}
	if err := l.writeMark(&pending{first: tail.first, last: tail.last, size: tail.size, lastCRC: tail.lastCRC}); err != nil {
		return fmt.Errorf("writing the mark: %w", err)
	}
	return nil
}

// tidy removes what a trim or an unfinished replacement of a file left.
func (l *Log) tidy(s *survey) error {
	for _, name := range []string{l.p.manifest, l.p.mark} {
		if err := l.files.Remove(name + tempSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, name := range s.stale {
		if err := l.files.Remove(filepath.Join(l.p.segments, name)); err != nil {
			return err
		}
	}
	return l.files.SyncDir(l.p.segments)
}

// repairTail cuts off a torn tail, and writes again what lies above the mark:
// after a failed sync it may be in the page cache only, and called clean there.
func (l *Log) repairTail(s *survey, f *findings, tail *segment) error {
	if t := f.tail.torn; t != nil {
		l.log.Warn("wal torn tail cut off; it was never acknowledged", "dir", l.p.dir, "segment", t.Segment,
			"offset", t.Offset, "bytes", t.Bytes, "index", t.Index, "expected", t.Expected, "found", t.Found)
		l.metrics.tornTails.Inc()
		l.torn = t.Bytes
		if err := tail.file.Truncate(tail.size); err != nil {
			return err
		}
	}
	from := int64(0)
	if s.mark.segment == tail.first {
		from = s.mark.offset
	}
	if err := rewrite(tail.file, from, tail.size); err != nil {
		return err
	}
	return tail.file.Sync()
}

// rewrite writes the bytes from from to to where they are already.
func rewrite(f File, from, to int64) error {
	buf := make([]byte, min(max(to-from, 0), scanWindow))
	for from < to {
		n := int(min(to-from, int64(len(buf))))
		if got, err := f.ReadAt(buf[:n], from); got < n {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if _, err := f.WriteAt(buf[:n], from); err != nil {
			return err
		}
		from += int64(n)
	}
	return nil
}

// adoptManifest opens the manifest, and writes it anew if its seals are not
// those of the finished segments.
func (l *Log) adoptManifest(s *survey, f *findings, tailFirst uint64) error {
	file, err := l.files.Open(l.p.manifest, os.O_RDWR)
	if err != nil {
		return err
	}
	l.epoch = s.charter.epoch
	l.manifest = &manifest{files: l.files, p: l.p, f: file, charter: s.charter, seals: f.seals, records: s.sealed}
	_, tailSealed := s.seals[tailFirst]
	if f.remade == 0 && s.lost == 0 && !tailSealed && !l.manifest.crowded() {
		return nil
	}
	return l.manifest.replace(func(_ *charter, seals []seal) []seal { return seals })
}
