package wal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// tailImage is a log of 20 entries in one segment, and the bytes around its end.
type tailImage struct {
	cfg            Config
	segment        string
	whole          []byte
	start19, end19 int // bytes of entry 19; entry 20 follows
	markOf         map[uint64][]byte
}

const tailEntrySize = 40

// newTailImage stores 18 entries, then 19 and 20 in one group or in two, and
// remembers the mark after each.
func newTailImage(t *testing.T, together bool) *tailImage {
	t.Helper()
	cfg := testConfig(t.TempDir())
	cfg.Files = quickFiles{}
	l := mustOpen(t, cfg)
	im := &tailImage{cfg: cfg, segment: segmentFiles(t, cfg.Dir)[0], markOf: map[uint64][]byte{}}
	mark := func(n uint64) { im.markOf[n] = readFile(t, pathsOf(cfg.Dir).mark) }
	mustStore(t, l, testEntries(1, 18, 1, tailEntrySize)...)
	mark(18)
	if together {
		mustStore(t, l, testEntries(19, 20, 1, tailEntrySize)...)
	} else {
		mustStore(t, l, testEntry(19, 1, tailEntrySize))
		mark(19)
		mustStore(t, l, testEntry(20, 1, tailEntrySize))
	}
	mark(20)
	mustClose(t, l)
	im.whole = readFile(t, im.segment)
	n := int(diskSize(tailEntrySize))
	im.start19, im.end19 = len(im.whole)-2*n, len(im.whole)-n
	return im
}

// put writes the segment and the mark as of entry synced.
func (im *tailImage) put(t *testing.T, segment []byte, synced uint64) {
	t.Helper()
	putFile(t, im.segment, segment)
	putFile(t, pathsOf(im.cfg.Dir).mark, im.markOf[synced])
}

// wantTorn opens the log and requires exactly entries 1 to last, and that work goes on.
func (im *tailImage) wantTorn(t *testing.T, last uint64, torn bool) {
	t.Helper()
	l, err := Open(im.cfg)
	if err != nil {
		t.Fatalf("torn tail was not cut back: %v", err)
	}
	defer mustClose(t, l)
	if got := l.Stats().TornBytes > 0; got != torn {
		t.Fatalf("a torn tail was found: %v, want %v", got, torn)
	}
	wantEntries(t, l, 1, last, 1, tailEntrySize)
	mustStore(t, l, testEntry(last+1, 1, tailEntrySize))
	wantEntries(t, l, 1, last+1, 1, tailEntrySize)
}

// TestTornOrCorrupt cuts and flips every byte of the last two entries. Above the mark that is
// a torn tail, at or below it corruption (FAULTS 7 and 11).
func TestTornOrCorrupt(t *testing.T) {
	for _, together := range []bool{true, false} {
		im := newTailImage(t, together)
		t.Run(fmt.Sprintf("together=%v/cut", together), func(t *testing.T) {
			for at := im.start19; at < len(im.whole); at++ {
				last := uint64(18)
				if at >= im.end19 {
					last = 19
				}
				im.put(t, im.whole[:at], 18)
				im.wantTorn(t, last, at != im.start19 && at != im.end19)
				im.put(t, im.whole[:at], 20)
				if d := wantDamage(t, im.cfg); d.Index != last+1 {
					t.Fatalf("cut at %d: damage at entry %d, want %d: %v", at, d.Index, last+1, d)
				}
			}
		})
		t.Run(fmt.Sprintf("together=%v/flip", together), func(t *testing.T) {
			for at := im.start19; at < len(im.whole); at++ {
				bad, last := append([]byte(nil), im.whole...), uint64(18)
				bad[at] ^= 1 << (at % 8)
				if at >= im.end19 {
					last = 19
				}
				im.put(t, bad, 20)
				if d := wantDamage(t, im.cfg); d.Index != last+1 || d.Offset < int64(im.start19) {
					t.Fatalf("flip at %d: damage at entry %d, byte %d: %v", at, d.Index, d.Offset, d)
				}
				im.put(t, bad, 18)
				if !together && last == 18 {
					// Entry 20 repeats the mark of 19: the old mark alone would call it torn.
					if d := wantDamage(t, im.cfg); d.Index != 19 {
						t.Fatalf("flip at %d: damage at entry %d, want 19: %v", at, d.Index, d)
					}
					continue
				}
				im.wantTorn(t, last, true)
			}
		})
	}
}

func TestZerosAtTheTailAreNoEntries(t *testing.T) {
	im := newTailImage(t, true)
	for _, zeros := range []int{1, 2, 63, 64, 65, 4096, 1 << 20} {
		im.put(t, append(append([]byte(nil), im.whole...), make([]byte, zeros)...), 20)
		im.wantTorn(t, 20, true)
		// The last two were never synced, and their pages were not written.
		im.put(t, append(append([]byte(nil), im.whole[:im.start19]...), make([]byte, zeros)...), 18)
		im.wantTorn(t, 18, true)
		// They were synced: that is no torn tail.
		im.put(t, append(append([]byte(nil), im.whole[:im.start19]...), make([]byte, zeros)...), 20)
		if d := wantDamage(t, im.cfg); d.Index != 19 {
			t.Fatalf("%d zeros: %v", zeros, d)
		}
	}
}

// TestPagesInAnyOrder tears a group of many entries at every sector: a sector
// of it is missing (zeros), what follows is there.
func TestPagesInAnyOrder(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.Files, cfg.SegmentSize = quickFiles{}, 1<<20
	l := mustOpen(t, cfg)
	mustStore(t, l, testEntries(1, 10, 1, 300)...)
	mark := readFile(t, pathsOf(cfg.Dir).mark)
	from := l.Bytes()
	mustStore(t, l, testEntries(11, 60, 1, 300)...)
	mustClose(t, l)
	segment := segmentFiles(t, cfg.Dir)[0]
	whole := readFile(t, segment)
	const sector = 512
	for at := (from/sector + 1) * sector; at+sector < int64(len(whole)); at += sector {
		bad := append([]byte(nil), whole...)
		clear(bad[at : at+sector])
		putFile(t, segment, bad)
		putFile(t, pathsOf(cfg.Dir).mark, mark)
		l := mustOpen(t, cfg)
		last := uint64(at / diskSize(300)) // the entry before the first one that was hit
		wantEntries(t, l, 1, last, 1, 300)
		mustClose(t, l)
	}
}

// TestUnsyncedTailIsWrittenAgain: frames above the mark may be in the page cache
// alone after a failed sync, so open writes them once more.
func TestUnsyncedTailIsWrittenAgain(t *testing.T) {
	im := newTailImage(t, true)
	im.put(t, im.whole, 18)
	var wrote, synced int
	im.cfg.Files = &hookedFiles{Files: quickFiles{}, before: func(op, name string) error {
		if filepath.Base(filepath.Dir(name)) == segmentsDir {
			switch op {
			case "write":
				wrote++
			case "sync":
				if wrote == 0 {
					return errors.New("synced before it was written again")
				}
				synced++
			}
		}
		return nil
	}}
	l := mustOpen(t, im.cfg)
	if wrote == 0 || synced == 0 {
		t.Fatalf("the tail above the mark was written %d times and synced %d times", wrote, synced)
	}
	wantEntries(t, l, 1, 20, 1, tailEntrySize)
	mustClose(t, l)
	if err := os.Truncate(im.segment, int64(im.start19)); err != nil {
		t.Fatal(err)
	}
	// Open has moved the mark: what it took over counts as synced from then on.
	wantRefused(t, im.cfg)
}
