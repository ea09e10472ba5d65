package wal

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/tidwall/wal"
)

// The hazards of tidwall/wal 1.2.1, by their numbers in DESIGN.md: each is first
// shown on the bare library, so that a new version that has lost it is noticed,
// and then to be none here.

func bareOptions() *wal.Options {
	return &wal.Options{NoSync: true, SegmentSize: smallSegments, AllowEmpty: true}
}

// bareLog has entries 1 to n of the bare library.
func bareLog(t *testing.T, n uint64) (*wal.Log, string) {
	t.Helper()
	dir := t.TempDir()
	w, err := wal.Open(dir, bareOptions())
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= n; i++ {
		if err := w.Write(i, testEntry(i, 1, 300).Data); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = w.Close() }) // some are closed already
	return w, dir
}

func bareSegments(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestHazard1TornTail(t *testing.T) {
	w, dir := bareLog(t, 5)
	if err := errors.Join(w.Close(), os.Truncate(bareSegments(t, dir)[0], 1000)); err != nil {
		t.Fatal(err)
	}
	if _, err := wal.Open(dir, bareOptions()); !errors.Is(err, wal.ErrCorrupt) {
		t.Fatalf("the bare library opens a torn tail: %v", err)
	}
	im := newTailImage(t, true)
	im.put(t, im.whole[:len(im.whole)-10], 18)
	im.wantTorn(t, 19, true)
}

func TestHazard2ZerosAreEntries(t *testing.T) {
	w, dir := bareLog(t, 5)
	segment := bareSegments(t, dir)[0]
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	putFile(t, segment, append(readFile(t, segment), make([]byte, 100)...))
	w, err := wal.Open(dir, bareOptions())
	if err != nil {
		t.Fatal(err)
	}
	if last, _ := w.LastIndex(); last != 105 {
		t.Fatalf("the bare library sees %d entries", last)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	im := newTailImage(t, true)
	im.put(t, append(append([]byte(nil), im.whole...), make([]byte, 100)...), 20)
	im.wantTorn(t, 20, true)
}

func TestHazard3FlippedByteIsServed(t *testing.T) {
	w, dir := bareLog(t, 5)
	segment := bareSegments(t, dir)[0]
	b := readFile(t, segment)
	b[100] ^= 1
	putFile(t, segment, b)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w, err := wal.Open(dir, bareOptions())
	if err != nil {
		t.Fatal(err)
	}
	if data, err := w.Read(1); err != nil || string(data) == string(testEntry(1, 1, 300).Data) {
		t.Fatalf("the bare library finds a flipped byte: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	// A flipped length in an old segment of ours: no entry of it is served wrong.
	cfg := damagedLog(t)
	cfg.SnapshotIndex, cfg.SnapshotTerm = 100, 1 // else open finds it
	old := segmentFiles(t, cfg.Dir)[2]
	b = readFile(t, old)
	b[diskSize(300)] ^= 0x04
	putFile(t, old, b)
	l := mustOpen(t, cfg)
	var e raft.Log
	for i := uint64(25); i <= 36; i++ {
		var damage *CorruptError
		if err := l.GetLog(i, &e); !errors.As(err, &damage) {
			t.Fatalf("entry %d of the damaged segment: %v", i, err)
		}
	}
}

func TestHazard4MissingSegments(t *testing.T) {
	w, dir := bareLog(t, 60)
	if err := errors.Join(w.Close(), os.Remove(bareSegments(t, dir)[1])); err != nil {
		t.Fatal(err)
	}
	w, err := wal.Open(dir, bareOptions())
	if err != nil {
		t.Fatalf("the bare library notices a missing segment: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for i := range segmentFiles(t, damagedLog(t).Dir) {
		cfg := damagedLog(t)
		if err := os.Remove(segmentFiles(t, cfg.Dir)[i]); err != nil {
			t.Fatal(err)
		}
		// Also when a snapshot spares open the scanning of it.
		cfg.SnapshotIndex, cfg.SnapshotTerm = 100, 1
		wantRefused(t, cfg)
	}
}

// TestHazard5RetryAfterAFailedWrite: see TestPartialWriteIsNotRetried and
// TestFileSizeLimit, which do it for real.
func TestHazard5RetryAfterAFailedWrite(t *testing.T) {
	l := mustOpen(t, testConfig(t.TempDir()))
	mustStore(t, l, testEntry(1, 1, 10))
	asked := 0
	l.lib = countedLibrary{l.lib, &asked}
	for range 3 {
		if err := l.StoreLog(testEntry(2, 1, 10)); !errors.Is(err, errDead) {
			t.Fatal(err)
		}
	}
	if asked != 1 {
		t.Fatalf("the library was asked %d times", asked)
	}
}

type countedLibrary struct {
	library
	asked *int
}

func (c countedLibrary) WriteBatch(*wal.Batch) error {
	*c.asked++
	return errDead
}

// TestHazard6ConcurrentColdReads is worth its while under -race: the bare library
// changes its cache under a read lock.
func TestHazard6ConcurrentColdReads(t *testing.T) {
	l := mustOpen(t, damagedLog(t))
	var readers sync.WaitGroup
	for r := range 8 {
		readers.Go(func() {
			var e raft.Log
			for i := range uint64(600) {
				index := (i*uint64(7+2*r))%120 + 1
				if err := l.GetLog(index, &e); err != nil {
					t.Errorf("entry %d: %v", index, err)
					return
				}
				if err := sameEntry(&e, testEntry(index, 1, 300)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	readers.Wait()
}

// TestHazard7TruncationRewritesASegment: ours writes a manifest header of 72 bytes in
// place and unlinks; no byte of a segment is written.
func TestHazard7TruncationRewritesASegment(t *testing.T) {
	cfg := damagedLog(t)
	files := newCountingFiles()
	cfg.Files = files
	l := mustOpen(t, cfg)
	l.SetFloor(100)
	l.compact(80)
	waitTrim(t, l)
	files.take()
	if err := l.DeleteRange(1, 98); err != nil {
		t.Fatal(err)
	}
	waitTrim(t, l)
	got := files.take()
	if got["write"] != 1 || got["create"] != 0 || got["truncate"] != 0 || got["remove"] == 0 || got["syncdir"] != 1 {
		t.Fatalf("a trim took %v", got)
	}
}

func TestHazard8BeginsWithOne(t *testing.T) {
	dir := t.TempDir()
	w, err := wal.Open(dir, bareOptions())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(42, nil); !errors.Is(err, wal.ErrOutOfOrder) {
		t.Fatalf("the bare library begins anywhere: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t.TempDir())
	cfg.SnapshotIndex, cfg.SnapshotTerm = 41, 3
	l := mustOpen(t, cfg)
	fill(t, l, 42, 80, 3, 300)
	mustClose(t, l)
	wantEntries(t, mustOpen(t, cfg), 42, 80, 3, 300)
}

func TestHazard9NoDirectorySyncNoLock(t *testing.T) {
	_, dir := bareLog(t, 1)
	if w, err := wal.Open(dir, bareOptions()); err != nil || w.Close() != nil {
		t.Fatalf("the bare library refuses a second open: %v", err)
	}
	files := newCountingFiles()
	cfg := testConfig(t.TempDir())
	cfg.Files = files
	l := mustOpen(t, cfg)
	if _, err := Open(cfg); !errors.Is(err, ErrInUse) {
		t.Fatalf("second open: %v", err)
	}
	files.take()
	mustStore(t, l, testEntries(1, 20, 1, 300)...) // ends a segment
	if got := files.take(); got["syncdir"] != 1 {
		t.Fatalf("a new segment took %v", got)
	}
}

func TestHazard10SegmentsAreSmall(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	if err := cfg.complete(); err != nil || cfg.SegmentSize != 4<<20 {
		t.Fatalf("default segment size %d, %v", cfg.SegmentSize, err)
	}
}

// TestHazard11NothingIsPreallocated: zeros are no entries, so a file never holds
// more than its entries.
func TestHazard11NothingIsPreallocated(t *testing.T) {
	l := mustOpen(t, testConfig(t.TempDir()))
	fill(t, l, 1, 40, 1, 300)
	var sum int64
	for _, s := range segmentFiles(t, l.cfg.Dir) {
		sum += int64(len(readFile(t, s)))
	}
	if want := 40 * diskSize(300); sum != want || l.Bytes() != want {
		t.Fatalf("%d bytes on disk, %d by the log, want %d", sum, l.Bytes(), want)
	}
}

// TestHazard12ReadsStallBehindSyncs: while a sync hangs, reads from memory and from
// disk, of the segment that is synced too, go on.
func TestHazard12ReadsStallBehindSyncs(t *testing.T) {
	for _, ring := range []int64{-1, 1 << 20} {
		hang, hanging := make(chan struct{}), make(chan struct{})
		armed := false
		cfg := testConfig(t.TempDir())
		cfg.RingBytes = ring
		cfg.Files = &hookedFiles{Files: osFiles{}, before: func(op, _ string) error {
			if armed && op == "sync" {
				close(hanging)
				<-hang
			}
			return nil
		}}
		l := mustOpen(t, cfg)
		fill(t, l, 1, 20, 1, 300)
		armed = true
		stored := make(chan error, 1)
		go func() { stored <- l.StoreLog(testEntry(21, 1, 300)) }()
		<-hanging
		wantEntries(t, l, 1, 20, 1, 300)
		l.SetFloor(5)
		l.SetApplied(10)
		if st := l.Stats(); st.Last != 20 || l.BytesBefore(10) == 0 {
			t.Fatalf("stats during a sync: %+v", st)
		}
		close(hang)
		if err := <-stored; err != nil {
			t.Fatal(err)
		}
	}
}
