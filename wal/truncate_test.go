package wal

import (
	"errors"
	"os"
	"testing"

	"github.com/hashicorp/raft"
)

func TestFloorDecidesWhatCompactionDeletes(t *testing.T) {
	cfg := damagedLog(t)
	l := mustOpen(t, cfg)
	first := func() uint64 {
		t.Helper()
		i, err := l.FirstIndex()
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	del := func(lo, hi uint64) {
		t.Helper()
		if err := l.DeleteRange(lo, hi); err != nil {
			t.Fatal(err)
		}
	}
	l.SetApplied(120)
	del(1, 120)
	if got := first(); got != 1 {
		t.Fatalf("without a floor the first entry is %d, want 1: nothing may go", got)
	}
	before := l.Bytes()
	l.SetFloor(30)
	if got := first(); got != 30 {
		t.Fatalf("first is %d, want the floor: it lets go what was asked for before", got)
	}
	waitTrim(t, l)
	if got := l.Bytes(); got >= before {
		t.Fatalf("%d bytes before the trim, %d after", before, got)
	}
	if got := len(segmentFiles(t, cfg.Dir)); got != l.Stats().Segments {
		t.Fatalf("%d files, %d segments", got, l.Stats().Segments)
	}
	l.SetFloor(20)
	if got := first(); got != 30 {
		t.Fatalf("a lower floor moved the first entry to %d", got)
	}
	var e raft.Log
	if err := l.GetLog(29, &e); !errors.Is(err, raft.ErrLogNotFound) {
		t.Fatalf("entry below the first: %v", err)
	}
	wantEntries(t, l, 30, 120, 1, 300)
	l.SetFloor(1000)
	if got := first(); got != 0 {
		t.Fatalf("everything was asked for and may go, but first is %d", got)
	}
	waitTrim(t, l)
	fill(t, l, 121, 130, 1, 300)
	wantEntries(t, l, 121, 130, 1, 300)
	mustClose(t, l)
	cfg.SnapshotIndex, cfg.SnapshotTerm = 120, 1
	l = mustOpen(t, cfg)
	if last, _ := l.LastIndex(); last != 130 {
		t.Fatalf("last is %d", last)
	}
}

func TestConflictIsCutAboveTheAppliedOnly(t *testing.T) {
	for _, keep := range []uint64{119, 110, 109, 108, 61, 60} {
		cfg := damagedLog(t)
		cfg.RingBytes = 1 << 20
		l := mustOpen(t, cfg)
		l.SetApplied(60)
		if err := l.DeleteRange(60, 120); !errors.Is(err, ErrApplied) {
			t.Fatalf("cutting applied entries: %v", err)
		}
		if err := l.DeleteRange(keep+1, 120); err != nil {
			t.Fatal(err)
		}
		wantEntries(t, l, 1, keep, 1, 300)
		if err := l.StoreLog(testEntry(keep+2, 2, 10)); !errors.Is(err, ErrOutOfOrder) {
			t.Fatalf("a hole after the cut: %v", err)
		}
		fill(t, l, keep+1, 140, 2, 280)
		check := func(l *Log) {
			t.Helper()
			var e raft.Log
			for i := uint64(1); i <= 140; i++ {
				want := testEntry(i, 1, 300)
				if i > keep {
					want = testEntry(i, 2, 280)
				}
				if err := l.GetLog(i, &e); err != nil {
					t.Fatal(err)
				}
				if err := sameEntry(&e, want); err != nil {
					t.Fatal(err)
				}
			}
		}
		check(l)
		mustClose(t, l)
		check(mustOpen(t, cfg))
	}
}

func TestMiddleIsNotDeleted(t *testing.T) {
	l := mustOpen(t, damagedLog(t))
	if err := l.DeleteRange(50, 60); !errors.Is(err, ErrRange) {
		t.Fatalf("got %v", err)
	}
	if err := l.DeleteRange(500, 600); err != nil {
		t.Fatalf("deleting nothing: %v", err)
	}
	wantEntries(t, l, 1, 120, 1, 300)
}

// TestLogThatLostWhatASnapshotHeldDoesNotOpen: only an installed snapshot may be
// ahead of the log. One that was taken here proves that entries are gone, perhaps
// undelivered ones: emptying the log would hide that.
func TestLogThatLostWhatASnapshotHeldDoesNotOpen(t *testing.T) {
	for name, snapshot := range map[string]uint64{"shorter": 121, "gone": 80} {
		t.Run(name, func(t *testing.T) {
			cfg := damagedLog(t)
			if name == "gone" {
				cfg.Dir = t.TempDir()
			}
			cfg.SnapshotIndex, cfg.SnapshotTerm, cfg.SnapshotTaken = snapshot, 1, true
			var corrupt *CorruptError
			l, err := Open(cfg)
			if !errors.As(err, &corrupt) || corrupt.Index != snapshot {
				if err == nil {
					mustClose(t, l)
				}
				t.Fatalf("got %v, want a *CorruptError for entry %d", err, snapshot)
			}
			if name == "shorter" {
				cfg.SnapshotIndex = 120
				l := mustOpen(t, cfg)
				wantEntries(t, l, 1, 120, 1, 300)
			}
		})
	}
}

// TestLogBeginsAfterAnInstalledSnapshot: the whole old log goes, shorter or longer than
// the snapshot, and the log begins behind it (HARD-CASES 10).
func TestLogBeginsAfterAnInstalledSnapshot(t *testing.T) {
	for _, snapshot := range []uint64{80, 119, 120, 121, 500} {
		cfg := damagedLog(t)
		cfg.RingBytes = 1 << 20
		l := mustOpen(t, cfg)
		l.SetFloor(10)
		l.SetApplied(snapshot)
		l.Installed(snapshot, 9)
		if err := l.DeleteRange(1, 120); err != nil {
			t.Fatal(err)
		}
		if first, _ := l.FirstIndex(); first != 0 || l.Bytes() != 0 {
			t.Fatalf("after the deletion: first %d, %d bytes", first, l.Bytes())
		}
		check := func(l *Log, last uint64) {
			t.Helper()
			// Raft needs the term of the entry before the first one that it sends.
			var e raft.Log
			if err := l.GetLog(snapshot, &e); err != nil || e.Index != snapshot || e.Term != 9 || len(e.Data) != 0 {
				t.Fatalf("the snapshot's entry: %+v, %v", e, err)
			}
			if err := l.GetLog(snapshot-1, &e); !errors.Is(err, raft.ErrLogNotFound) {
				t.Fatalf("before the snapshot: %v", err)
			}
			if last > 0 {
				wantEntries(t, l, snapshot+1, last, 9, 200)
			}
		}
		check(l, 0)
		mustClose(t, l)
		cfg.SnapshotIndex, cfg.SnapshotTerm = snapshot, 9
		l = mustOpen(t, cfg)
		check(l, 0)
		fill(t, l, snapshot+1, snapshot+50, 9, 200)
		check(l, snapshot+50)
		mustClose(t, l)
		check(mustOpen(t, cfg), snapshot+50)
	}
}

// TestEmptyLogTakesWhatComes: an installed snapshot of which nobody told the empty log.
func TestEmptyLogTakesWhatComes(t *testing.T) {
	cfg := testConfig(t.TempDir())
	l := mustOpen(t, cfg)
	fill(t, l, 1000, 1100, 3, 200)
	wantEntries(t, l, 1000, 1100, 3, 200)
	var e raft.Log
	if err := l.GetLog(999, &e); !errors.Is(err, raft.ErrLogNotFound) {
		t.Fatalf("entry of which no term is known: %v", err)
	}
	mustClose(t, l)
	if d := wantDamage(t, cfg); d.Index != 1 {
		t.Fatalf("log without its snapshot: %v", d)
	}
	cfg.SnapshotIndex, cfg.SnapshotTerm = 999, 3
	wantEntries(t, mustOpen(t, cfg), 1000, 1100, 3, 200)
}

func TestOldLogIsEmptiedAtOpen(t *testing.T) {
	cases := map[string]struct{ index, term, first, last uint64 }{
		"ends below the snapshot":             {200, 4, 0, 0},
		"ends with the snapshot":              {120, 1, 1, 120},
		"other entry in the snapshot's place": {60, 2, 0, 0},
		"snapshot inside":                     {60, 1, 1, 120},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := damagedLog(t)
			cfg.SnapshotIndex, cfg.SnapshotTerm = c.index, c.term
			l := mustOpen(t, cfg)
			wantEntries(t, l, c.first, c.last, 1, 300)
			next := max(c.last, c.index) + 1
			mustStore(t, l, testEntry(next, 5, 10))
			mustClose(t, l)
			l = mustOpen(t, cfg)
			if last, _ := l.LastIndex(); last != next {
				t.Fatalf("last is %d, want %d", last, next)
			}
		})
	}
}

// TestLostEndIsNoOldLog: entries that were acknowledged are missing, and a
// snapshot newer than what is left must not cover that up.
func TestLostEndIsNoOldLog(t *testing.T) {
	cfg := damagedLog(t)
	segs := segmentFiles(t, cfg.Dir)
	for _, s := range segs[5:] {
		if err := os.Remove(s); err != nil {
			t.Fatal(err)
		}
	}
	cfg.SnapshotIndex, cfg.SnapshotTerm = 100, 1
	wantRefused(t, cfg)
}

// TestLibraryIsOpenedAnew: it remembers every segment that it ever wrote.
func TestLibraryIsOpenedAnew(t *testing.T) {
	cfg := testConfig(t.TempDir())
	l := mustOpen(t, cfg)
	fill(t, l, 1, 50, 1, 1000)
	was := l.lib
	l.rolls = libraryMemory
	fill(t, l, 51, 60, 1, 1000)
	if l.lib == was || l.rolls >= libraryMemory {
		t.Fatal("the library was not opened anew")
	}
	fill(t, l, 61, 100, 1, 1000)
	wantEntries(t, l, 1, 100, 1, 1000)
}
