package wal

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

var update = flag.Bool("update", false, "write the golden files")

func mustInspect(t *testing.T, dir string) *Reader {
	t.Helper()
	r, err := Inspect(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestInspectListsSegments(t *testing.T) {
	cfg := damagedLog(t)
	r := mustInspect(t, cfg.Dir)
	got := r.Segments()
	if len(got) != 11 || len(r.Damage()) != 0 || r.First() != 1 || r.Synced() != 120 {
		t.Fatalf("%d segments, damage %v, first %d, synced %d", len(got), r.Damage(), r.First(), r.Synced())
	}
	want := []SegmentInfo{
		{Name: "00000000000000000109", First: 109, Last: 120, Bytes: 12 * diskSize(300), Sealed: true},
		{Name: "00000000000000000121", First: 121},
	}
	if diff := cmp.Diff(want, got[9:]); diff != "" {
		t.Error(diff)
	}
}

func TestInspectReadsEntries(t *testing.T) {
	cfg := damagedLog(t)
	for _, from := range []uint64{0, 1, 12, 13, 60, 120, 121} {
		next := max(from, 1)
		for e, err := range mustInspect(t, cfg.Dir).Entries(from) {
			if err != nil {
				t.Fatal(err)
			}
			got := &raft.Log{Index: e.Index, Term: e.Term, Type: e.Type, Data: e.Data, Extensions: e.Extensions}
			if err := sameEntry(got, testEntry(next, 1, 300)); err != nil {
				t.Fatal(err)
			}
			if _, crc := appendFrame(nil, got, syncMark{}); crc != e.CRC {
				t.Fatalf("entry %d has CRC %08x, want %08x", e.Index, e.CRC, crc)
			}
			next++
		}
		if next != 121 {
			t.Fatalf("from %d: ended before entry %d", from, next)
		}
	}
	for e, err := range mustInspect(t, cfg.Dir).Entries(5) {
		if err != nil || e.Index != 5 {
			t.Fatalf("%d, %v", e.Index, err)
		}
		break
	}
}

// TestVerifyTellsTornFromDamaged: a torn tail alone is no damage, and damage in
// the middle does not end the reading.
func TestVerifyTellsTornFromDamaged(t *testing.T) {
	im := newTailImage(t, true)
	im.put(t, im.whole[:len(im.whole)-9], 18)
	var calls int
	rep, err := mustInspect(t, im.cfg.Dir).Verify(func(p Progress) error {
		calls++
		if p.Bytes != p.Total {
			return fmt.Errorf("after the only segment: %+v", p)
		}
		return nil
	})
	if err != nil || calls != 1 {
		t.Fatalf("%v after %d calls", err, calls)
	}
	want := &Report{
		First: 1, Last: 19, Entries: 19, Segments: 1, Bytes: int64(len(im.whole) - 9), Runs: []Run{{1, 19}},
		Torn: &Torn{Segment: "log/00000000000000000001", Offset: int64(im.end19), Bytes: diskSize(tailEntrySize) - 9, Index: 20},
	}
	if diff := cmp.Diff(want, rep, cmpopts.IgnoreFields(Torn{}, "Expected", "Found")); diff != "" {
		t.Error(diff)
	}
	for _, err := range mustInspect(t, im.cfg.Dir).Entries(20) {
		var torn *Torn
		if !errors.As(err, &torn) {
			t.Fatalf("reading a torn tail: %v", err)
		}
	}

	cfg := damagedLog(t)
	segs := segmentFiles(t, cfg.Dir)
	for _, i := range []int{2, 5} {
		b := readFile(t, segs[i])
		b[4*diskSize(300)+100] ^= 1
		putFile(t, segs[i], b)
	}
	rep, err = mustInspect(t, cfg.Dir).Verify(nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Damage) != 2 || rep.Damage[0].Index != 29 || rep.Damage[1].Index != 65 || rep.Entries != 118 || rep.Last != 120 {
		t.Fatalf("%+v", rep)
	}
	enough := errors.New("enough")
	if _, err := mustInspect(t, cfg.Dir).Verify(func(Progress) error { return enough }); !errors.Is(err, enough) {
		t.Fatalf("progress did not end the reading: %v", err)
	}
}

func TestErrorTexts(t *testing.T) {
	got := (&CorruptError{
		Dir: "/data/lanes/0", Segment: "log/00000000000000000013", Offset: 366, Index: 14,
		Expected: "an entry with checksum 00000001", Found: "checksum 00000002",
	}).Error()
	want := "log is damaged: /data/lanes/0/log/00000000000000000013 at byte 366, entry 14: expected an entry with checksum 00000001, " +
		"found checksum 00000002; nothing was changed: `forebay wal verify` lists all the damage, " +
		"and what can be done (ops/RUNBOOK.md, The log is damaged)"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTornTailIsLoggedAndCounted(t *testing.T) {
	im := newTailImage(t, true)
	im.put(t, im.whole[:len(im.whole)-9], 18)
	reg := prometheus.NewRegistry()
	var lines strings.Builder
	im.cfg.Registerer, im.cfg.Lane = reg, "3"
	im.cfg.Logger = slog.New(slog.NewTextHandler(&lines, nil))
	l := mustOpen(t, im.cfg)
	if n := strings.Count(lines.String(), "\n"); n != 1 || !strings.Contains(lines.String(), "torn tail cut off") {
		t.Fatalf("logged %q", lines.String())
	}
	mustStore(t, l, testEntry(20, 1, 10))
	want := `
# HELP forebay_wal_bytes Bytes of the segments on disk.
# TYPE forebay_wal_bytes gauge
forebay_wal_bytes{lane="3"} 2070
# HELP forebay_wal_torn_tails_total Torn tails cut off at open; they were never acknowledged.
# TYPE forebay_wal_torn_tails_total counter
forebay_wal_torn_tails_total{lane="3"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "forebay_wal_bytes", "forebay_wal_torn_tails_total"); err != nil {
		t.Error(err)
	}
	mustClose(t, l)
	if n, err := testutil.GatherAndCount(reg); err != nil || n != 0 {
		t.Fatalf("%d metrics after Close, %v", n, err)
	}
	// The same registry takes the log opened again.
	mustClose(t, mustOpen(t, im.cfg))
}

func TestConfigIsChecked(t *testing.T) {
	for _, cfg := range []Config{{}, {Dir: "x", SegmentSize: 100}, {Dir: "x", SegmentSize: 2 << 30}} {
		if _, err := Open(cfg); err == nil {
			t.Errorf("%+v was opened", cfg)
		}
	}
	dir := filepath.Join(t.TempDir(), "a", "b")
	l := mustOpen(t, Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err := l.StoreLog(&raft.Log{Index: 1, Data: make([]byte, MaxEntry+1)}); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("got %v", err)
	}
	if err := l.StoreLogs([]*raft.Log{testEntry(1, 1, 1), testEntry(3, 1, 1)}); !errors.Is(err, ErrOutOfOrder) {
		t.Fatalf("got %v", err)
	}
	if l.Err() != nil {
		t.Fatalf("a refused group failed the log: %v", l.Err())
	}
	mustStore(t, l, &raft.Log{Index: 1, Term: 1}, testEntry(2, 1, 3<<20))
	mustClose(t, l)
	if err := l.StoreLog(testEntry(3, 1, 1)); !errors.Is(err, ErrClosed) {
		t.Fatalf("got %v", err)
	}
	var e raft.Log
	if err := l.GetLog(1, &e); !errors.Is(err, ErrClosed) {
		t.Fatalf("got %v", err)
	}
}
