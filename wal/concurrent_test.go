package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"
)

// TestReadersWhileTheLogChanges reads everywhere while entries are appended,
// trimmed, cut and the log is emptied. What is read is what was stored under that
// index by some term, or not there any more; never anything else, and no failure.
func TestReadersWhileTheLogChanges(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.Files, cfg.RingBytes = quickFiles{}, 4<<10
	l := mustOpen(t, cfg)
	var last, term atomic.Uint64
	term.Store(1)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			var e raft.Log
			for {
				select {
				case <-stop:
					return
				default:
				}
				end := last.Load()
				index := end - rand.Uint64N(min(end, 120)+1)
				err := l.GetLog(index, &e)
				if errors.Is(err, raft.ErrLogNotFound) {
					continue
				}
				if err == nil && e.Type == raft.LogNoop {
					continue // the entry that the log was begun after
				}
				if err == nil {
					err = sameEntry(&e, testEntry(index, e.Term, int(200+e.Term%50)))
				}
				if err == nil && e.Term > term.Load() {
					err = fmt.Errorf("entry %d of term %d, which is yet to come", index, e.Term)
				}
				if err != nil {
					t.Errorf("entry %d: %v", index, err)
					return
				}
			}
		})
	}
	change := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	next := uint64(1)
	for round := range uint64(300) {
		tm := term.Load()
		n := rand.Uint64N(12) + 1
		mustStore(t, l, testEntries(next, next+n-1, tm, int(200+tm%50))...)
		next += n
		last.Store(next - 1)
		switch {
		case round%100 == 99: // a snapshot is installed
			term.Add(1)
			l.SetApplied(next + 10)
			l.Installed(next+10, tm)
			first, err := l.FirstIndex()
			change(err)
			change(l.DeleteRange(first, next-1))
			next += 11
		case round%7 == 0 && n > 2: // a conflict
			term.Add(1)
			change(l.DeleteRange(next-n/2, next-1))
			next -= n / 2
		case round%11 == 0 && next > 200: // compaction
			l.SetApplied(next - 100)
			l.SetFloor(next - 110)
			first, err := l.FirstIndex()
			change(err)
			change(l.DeleteRange(first, next-100))
		}
	}
	close(stop)
	readers.Wait()
	if err := l.Err(); err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
	r, err := Inspect(cfg.Dir)
	change(err)
	rep, err := r.Verify(nil)
	if err != nil || len(rep.Damage) > 0 || rep.Torn != nil {
		t.Fatalf("verify: %+v, %v", rep, err)
	}
}

// TestFreshEntriesAreReadFromMemory: no file is opened or read for them.
func TestFreshEntriesAreReadFromMemory(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.RingBytes = 10 * (300 + entryOverhead)
	l := mustOpen(t, cfg)
	stored := testEntries(1, 40, 1, 300)
	mustStore(t, l, stored...)
	if st := l.Stats(); st.RingEntries != 10 || st.RingBytes > cfg.RingBytes {
		t.Fatalf("ring holds %d entries of %d bytes", st.RingEntries, st.RingBytes)
	}
	var e raft.Log
	for i := uint64(31); i <= 40; i++ {
		if !l.ring.get(i, &e) {
			t.Fatalf("entry %d is not in memory", i)
		}
		if &e.Data[0] != &stored[i-1].Data[0] {
			t.Fatalf("entry %d was copied", i)
		}
	}
	if l.ring.get(30, &e) {
		t.Fatal("entry 30 is beyond the ring's bytes")
	}
	if n := testing.AllocsPerRun(100, func() { _ = l.GetLog(40, &e) }); n != 0 {
		t.Fatalf("a read from memory allocates %v times", n)
	}
	// One that is larger than the whole ring leaves nothing wrong in it.
	mustStore(t, l, testEntry(41, 1, 10_000))
	mustStore(t, l, testEntry(42, 1, 300))
	for i := uint64(1); i <= 42; i++ {
		if err := l.GetLog(i, &e); err != nil || e.Index != i {
			t.Fatalf("entry %d: %+v, %v", i, e.Index, err)
		}
	}
}

// TestOneSyncPerGroup: as long as no segment ends, a group costs one sync, and
// one write of the mark.
func TestOneSyncPerGroup(t *testing.T) {
	files := newCountingFiles()
	cfg := testConfig(t.TempDir())
	cfg.Files, cfg.SegmentSize = files, 1<<20
	l := mustOpen(t, cfg)
	files.take()
	for i := uint64(1); i < 50; i += 5 {
		mustStore(t, l, testEntries(i, i+4, 1, 300)...)
		if got := files.take(); got["sync"] != 1 || got["write"] != 1 || len(got) != 2 {
			t.Fatalf("a group took %v", got)
		}
	}
}

// TestSequentialColdReaderIndexesOnce: each finished segment is opened and hopped
// through once, however many entries are read.
func TestSequentialColdReaderIndexesOnce(t *testing.T) {
	cfg := damagedLog(t)
	opened := &openCounter{Files: osFiles{}}
	cfg.Files = opened
	l := mustOpen(t, cfg)
	opened.n.Store(0)
	segments := int64(l.Stats().Segments)
	wantEntries(t, l, 1, 120, 1, 300)
	if got := opened.n.Load(); got != segments-1 {
		t.Fatalf("%d files were opened to read %d segments", got, segments)
	}
	if n := len(l.cold.items); n > coldSegments {
		t.Fatalf("%d segments are kept", n)
	}
}

type openCounter struct {
	Files
	n atomic.Int64
}

func (c *openCounter) Open(name string, flag int) (File, error) {
	c.n.Add(1)
	return c.Files.Open(name, flag)
}

func TestColdCacheIsBounded(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.Files = quickFiles{}
	l := mustOpen(t, cfg)
	fill(t, l, 1, 600, 1, 300)
	for range 3 {
		wantEntries(t, l, 1, 600, 1, 300)
	}
	if n := len(l.cold.items); n != coldSegments {
		t.Fatalf("%d segments are kept, want %d", n, coldSegments)
	}
}

func TestBytesBefore(t *testing.T) {
	l := mustOpen(t, damagedLog(t))
	one := diskSize(300)
	for _, index := range []uint64{1, 2, 13, 25, 60, 119, 120, 121, 500} {
		want := int64(min(index, 121)-1) * one
		if got := l.BytesBefore(index); got < want-2 || got > want+2 {
			t.Errorf("BytesBefore(%d) = %d, want %d", index, got, want)
		}
		if got := l.BytesSince(index) + l.BytesBefore(index); got != l.Bytes() {
			t.Errorf("before and since %d are %d, all is %d", index, got, l.Bytes())
		}
	}
}
