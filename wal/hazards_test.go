package wal

import (
	"bytes"
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
	// In old segments of ours: no entry is served wrong, and with a flipped length none
	// of its segment is served at all.
	cfg := damagedLog(t)
	cfg.SnapshotIndex, cfg.SnapshotTerm = 100, 1 // else open finds it
	files := segmentFiles(t, cfg.Dir)
	flip := func(segment int, at int64) {
		b := readFile(t, files[segment])
		b[at] ^= 0x04
		putFile(t, files[segment], b)
	}
	flip(1, diskSize(300)-1) // the last byte of entry 13
	flip(2, diskSize(300))
	l := mustOpen(t, cfg)
	var e raft.Log
	for _, i := range append([]uint64{13}, seq(25, 36)...) {
		var damage *CorruptError
		if err := l.GetLog(i, &e); !errors.As(err, &damage) {
			t.Fatalf("entry %d of the damaged segment: %v", i, err)
		}
	}
}

func seq(from, to uint64) (all []uint64) {
	for i := from; i <= to; i++ {
		all = append(all, i)
	}
	return all
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
	if !panics(func() { _, _ = w.Read(20) }) {
		t.Fatal("the bare library reads around a missing segment")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	left := bareSegments(t, dir)
	if err := os.Remove(left[len(left)-1]); err != nil {
		t.Fatal(err)
	}
	w, err = wal.Open(dir, bareOptions())
	if err != nil {
		t.Fatalf("the bare library notices that its end is missing: %v", err)
	}
	if last, err := w.LastIndex(); err != nil || last >= 60 {
		t.Fatalf("the bare library ends with %d, %v", last, err)
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

// TestHazard5RetryAfterAFailedWrite: a disk that is full takes a part of a write, and
// there is room again. TestPartialWriteIsNotRetried and TestFileSizeLimit make ours fail for real.
func TestHazard5RetryAfterAFailedWrite(t *testing.T) {
	var wrong int
	var reopens bool
	child(t, bareDirEnv, t.TempDir(), &wrong, &reopens)
	if wrong == 0 || reopens {
		t.Fatalf("the bare library bears a retry: %d entries read wrong, reopening works: %t", wrong, reopens)
	}
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

// TestHazard7TruncationRewritesASegment: the bare library makes a file that begins
// with the first entry that stays; ours writes a manifest header of 72 bytes in
// place and unlinks; no byte of a segment is written.
func TestHazard7TruncationRewritesASegment(t *testing.T) {
	w, dir := bareLog(t, 20)
	before := bareSegments(t, dir)
	if err := w.TruncateFront(5); err != nil {
		t.Fatal(err)
	}
	after := bareSegments(t, dir)
	if filepath.Base(after[0]) == filepath.Base(before[0]) || filepath.Base(after[0]) != segmentName(5) {
		t.Fatalf("the bare library rewrites no segment: it begins with %s", after[0])
	}
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
	first, dir := bareLog(t, 1)
	second, err := wal.Open(dir, bareOptions())
	if err != nil {
		t.Fatalf("the bare library refuses a second open: %v", err)
	}
	if err := errors.Join(first.Write(2, []byte("first")), second.Write(2, []byte("other")), second.Close()); err != nil {
		t.Fatalf("the bare library notices a second writer: %v", err)
	}
	if data := readFile(t, bareSegments(t, dir)[0]); bytes.Contains(data, []byte("first")) {
		t.Fatal("the bare library keeps what the first writer was told is written")
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
	if wal.DefaultOptions.SegmentSize != 20<<20 {
		t.Fatalf("the bare library's segments have %d bytes", wal.DefaultOptions.SegmentSize)
	}
	cfg := Config{Dir: t.TempDir()}
	if err := cfg.complete(); err != nil || cfg.SegmentSize != 4<<20 {
		t.Fatalf("default segment size %d, %v", cfg.SegmentSize, err)
	}
}

// TestHazard11NothingIsPreallocated: zeros are no entries, so a file never holds
// more than its entries.
func TestHazard11NothingIsPreallocated(t *testing.T) {
	w, dir := bareLog(t, 1)
	segment := bareSegments(t, dir)[0]
	if err := errors.Join(w.Close(), os.Truncate(segment, int64(len(readFile(t, segment)))+1000)); err != nil {
		t.Fatal(err)
	}
	w, err := wal.Open(dir, bareOptions())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(2, nil); !errors.Is(err, wal.ErrOutOfOrder) {
		t.Fatalf("the bare library goes on in space that was made beforehand: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
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
