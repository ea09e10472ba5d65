package wal

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
)

func mustHold(t *testing.T, dir string) *Held {
	t.Helper()
	h, err := Hold(dir, noWait)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// wantWhole holds a repaired log against entries first to last of the usual log, and appended
// ones behind; it must open, take more, and be whole by Verify.
func wantWhole(t *testing.T, cfg Config, first, last uint64, appended ...*raft.Log) {
	t.Helper()
	if first > 1 {
		cfg.SnapshotIndex, cfg.SnapshotTerm = first-1, 1
	}
	l := mustOpen(t, cfg)
	if end := last + uint64(len(appended)); end >= first {
		wantEntries(t, l, first, end, 1, 300)
	}
	next := last + uint64(len(appended)) + 1
	fill(t, l, next, next+30, 1, 300)
	mustClose(t, l)
	rep, err := mustInspect(t, cfg.Dir).Verify(nil)
	if err != nil || len(rep.Damage) > 0 || rep.Torn != nil {
		t.Fatalf("verify: %+v, %v", rep, err)
	}
	if len(rep.Runs) != 1 || rep.Runs[0] != (Run{first, next + 30}) {
		t.Fatalf("runs %v, want %d to %d", rep.Runs, first, next+30)
	}
}

func TestAmend(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	flip := func(t *testing.T, path string, at int) {
		b := readFile(t, path)
		b[at] ^= 0x10
		putFile(t, path, b)
	}
	frame := int(diskSize(300))
	cases := map[string]struct {
		hurt        func(t *testing.T, dir string, segs []string)
		first, last uint64
		append      int
		runs        []Run // that Verify finds before
	}{
		"cut within a segment":       {func(t *testing.T, _ string, s []string) { flip(t, s[3], 2*frame+200) }, 1, 38, 0, []Run{{1, 38}, {40, 120}}},
		"cut and append":             {func(t *testing.T, _ string, s []string) { flip(t, s[3], 2*frame+200) }, 1, 38, 3, nil},
		"cut at a segment's end":     {func(t *testing.T, _ string, s []string) { flip(t, s[3], 200) }, 1, 36, 2, []Run{{1, 36}, {38, 120}}},
		"begin within a segment":     {func(t *testing.T, _ string, s []string) { flip(t, s[3], 2*frame+200) }, 40, 120, 1, nil},
		"begin at a segment":         {func(t *testing.T, _ string, s []string) { flip(t, s[3], 11*frame+200) }, 49, 120, 0, nil},
		"both ends":                  {func(t *testing.T, _ string, s []string) { flip(t, s[1], 100); flip(t, s[5], 100) }, 14, 60, 5, []Run{{1, 12}, {14, 60}, {62, 120}}},
		"nothing stays":              {func(t *testing.T, _ string, s []string) { flip(t, s[0], 100) }, 1, 0, 2, []Run{{2, 120}}},
		"nothing at all":             {func(t *testing.T, _ string, s []string) { flip(t, s[0], 100) }, 1, 0, 0, nil},
		"a missing segment":          {func(t *testing.T, _ string, s []string) { os.Remove(s[4]) }, 1, 48, 0, []Run{{1, 48}, {61, 120}}},
		"a missing end":              {func(t *testing.T, _ string, s []string) { os.Remove(s[10]); os.Remove(s[9]) }, 1, 108, 1, []Run{{1, 108}}},
		"the mark":                   {func(t *testing.T, d string, _ []string) { os.Remove(filepath.Join(d, markName)) }, 1, 120, 0, []Run{{1, 120}}},
		"the manifest":               {func(t *testing.T, d string, _ []string) { os.Remove(filepath.Join(d, manifestName)) }, 1, 120, 0, []Run{{1, 120}}},
		"a foreign file":             {func(t *testing.T, d string, _ []string) { putFile(t, filepath.Join(d, segmentsDir, "x"), []byte("x")) }, 1, 120, 0, []Run{{1, 120}}},
		"one segment twice":          {func(t *testing.T, _ string, s []string) { putFile(t, s[4], readFile(t, s[3])) }, 1, 48, 1, []Run{{1, 48}, {61, 120}}},
		"entries of a sealed chain":  {func(t *testing.T, _ string, s []string) { otherEntries(t, s[3]) }, 1, 36, 1, []Run{{1, 36}, {49, 120}}},
		"bytes behind the last":      {func(t *testing.T, _ string, s []string) { putFile(t, s[3], append(readFile(t, s[3]), 1, 2, 3)) }, 1, 48, 0, []Run{{1, 120}}},
		"zeros over a whole segment": {func(t *testing.T, _ string, s []string) { putFile(t, s[3], make([]byte, 12*frame)) }, 1, 36, 1, []Run{{1, 36}, {49, 120}}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := damagedLog(t)
			tc.hurt(t, cfg.Dir, segmentFiles(t, cfg.Dir))
			before := contents(t, cfg.Dir)
			rep, err := mustInspect(t, cfg.Dir).Verify(nil)
			if err != nil || len(rep.Damage) == 0 {
				t.Fatalf("verify: %v, %v", rep, err)
			}
			if tc.runs != nil && !sameRuns(rep.Runs, tc.runs) {
				t.Errorf("runs %v, want %v", rep.Runs, tc.runs)
			}
			h := mustHold(t, cfg.Dir)
			var more []*raft.Log
			if tc.append > 0 {
				more = testEntries(tc.last+1, tc.last+uint64(tc.append), 1, 300)
			}
			place, err := h.Amend(Amendment{First: tc.first, Last: tc.last, Append: more, At: at})
			if err != nil {
				t.Fatal(err)
			}
			if place != "quarantine/20260102T030405.000Z" {
				t.Errorf("place %q", place)
			}
			wantNothingLost(t, cfg.Dir, place, before)
			_ = h.Close()
			wantWhole(t, cfg, tc.first, tc.last, more...)
		})
	}
}

func sameRuns(a, b []Run) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// otherEntries puts whole entries, which are not those that were sealed, into a segment.
func otherEntries(t *testing.T, path string) {
	t.Helper()
	var b []byte
	first, _ := parseSegment(filepath.Base(path))
	for i := range uint64(12) {
		e := testEntry(first+i, 1, 300)
		e.Data[7] ^= 1
		frame, _ := appendFrame(nil, e, syncMark{})
		b = append(append(b, byte(len(frame)&0x7f|0x80), byte(len(frame)>>7)), frame...)
	}
	putFile(t, path, b)
}

// contents are the bytes of all files that are the log's.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, path := range append(segmentFiles(t, dir), filepath.Join(dir, manifestName), filepath.Join(dir, markName)) {
		if b, err := os.ReadFile(path); err == nil {
			rel, _ := filepath.Rel(dir, path)
			files[rel] = string(b)
		}
	}
	return files
}

// wantNothingLost: each file that there was is there as it was, in its place or in the quarantine.
func wantNothingLost(t *testing.T, dir, place string, before map[string]string) {
	t.Helper()
	for rel, want := range before {
		kept, _ := os.ReadFile(filepath.Join(dir, place, rel))
		now, _ := os.ReadFile(filepath.Join(dir, rel))
		if string(kept) != want && string(now) != want {
			t.Errorf("%s is neither in its place nor in %s as it was", rel, place)
		}
	}
}

func TestAmendRefusesWhatIsNotWhole(t *testing.T) {
	cfg := damagedLog(t)
	segs := segmentFiles(t, cfg.Dir)
	b := readFile(t, segs[3])
	b[300] ^= 1
	putFile(t, segs[3], b)
	h := mustHold(t, cfg.Dir)
	for _, a := range []Amendment{
		{First: 1, Last: 60},
		{First: 30, Last: 37},
		{First: 37, Last: 120},
		{First: 100, Last: 130},
		{First: 1, Last: 20, Append: testEntries(22, 22, 1, 10)},
		{First: 1, Last: 20, Append: testEntries(21, 21, 0, 10)},
	} {
		before := contents(t, cfg.Dir)
		if _, err := h.Amend(a); err == nil {
			t.Errorf("%+v was carried out", a)
		}
		for rel, want := range before {
			if now := contents(t, cfg.Dir)[rel]; now != want {
				t.Errorf("%+v changed %s", a, rel)
			}
		}
	}
}

func TestHoldIsAlone(t *testing.T) {
	cfg := testConfig(t.TempDir())
	mustOpen(t, cfg)
	if _, err := Hold(cfg.Dir, noWait); !errors.Is(err, ErrInUse) {
		t.Errorf("Hold beside an open log: %v", err)
	}
	if _, err := Hold(filepath.Join(cfg.Dir, "nowhere"), noWait); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Hold where nothing is: %v", err)
	}
}

// TestAmendAtEachCrashPoint stops a repair before each of its operations. What is found then is the old log,
// untouched, or one that nothing opens until Finish has made the new one of it.
func TestAmendAtEachCrashPoint(t *testing.T) {
	amend := func(h *Held) error {
		_, err := h.Amend(Amendment{First: 14, Last: 60, Append: testEntries(61, 62, 1, 300)})
		return err
	}
	hurt := func(t *testing.T, dir string) {
		segs := segmentFiles(t, dir)
		for _, i := range []int{1, 5} {
			b := readFile(t, segs[i])
			b[100] ^= 1
			putFile(t, segs[i], b)
		}
	}
	n := crashPoints(t, hurt, amend, func(t *testing.T, cfg Config) {
		wantWhole(t, cfg, 14, 60, testEntries(61, 62, 1, 300)...)
	})
	t.Logf("%d crash points", n)
}

var errCrash = errors.New("crash")

// crashPoints runs change on a damaged log, and ends it before operation 1, 2, 3 … until it comes to its end; after each it
// goes on as the tools would, again with an end at each operation, and looks at the result.
func crashPoints(t *testing.T, hurt func(*testing.T, string), change func(*Held) error, result func(*testing.T, Config)) int {
	t.Helper()
	points := 0
	from := damagedLog(t)
	hurt(t, from.Dir)
	for stop := 1; ; stop++ {
		cfg := testConfig(t.TempDir())
		cfg.Files = quickFiles{}
		if err := os.CopyFS(cfg.Dir, os.DirFS(from.Dir)); err != nil {
			t.Fatal(err)
		}
		before := contents(t, cfg.Dir)
		ended := crashing(t, cfg.Dir, stop, change)
		begun := false
		for again := 1; ; again++ { // Finish, too, may be interrupted
			l, err := Open(cfg)
			if err == nil {
				mustClose(t, l)
			}
			if _, look := Inspect(cfg.Dir); errors.Is(err, ErrUnfinished) != errors.Is(look, ErrUnfinished) {
				t.Fatalf("stop %d: Open says %v, Inspect %v", stop, err, look)
			}
			if !errors.Is(err, ErrUnfinished) {
				break
			}
			begun = true
			if points++; crashing(t, cfg.Dir, again, func(h *Held) error { _, err := h.Finish(); return err }) {
				break
			}
		}
		// All is as it was, or all is done, but for the last sync.
		if !begun && !ended && cmp.Equal(before, contents(t, cfg.Dir)) {
			if h := mustHold(t, cfg.Dir); change(h) != nil {
				t.Fatalf("stop %d: not possible any more", stop)
			} else {
				_ = h.Close()
			}
		}
		places, _ := filepath.Glob(filepath.Join(cfg.Dir, quarantineDir, "*"))
		for rel, want := range before {
			found := false
			for _, path := range append(places, cfg.Dir) {
				b, _ := os.ReadFile(filepath.Join(path, rel))
				found = found || string(b) == want
			}
			if !found && rel != markName { // an open writes the mark anew
				t.Fatalf("stop %d: what %s was is nowhere", stop, rel)
			}
		}
		result(t, cfg)
		points++
		if ended {
			return points
		}
	}
}

// crashing runs change, which ends before its operation number stop, and tells whether it came to its end.
func crashing(t *testing.T, dir string, stop int, change func(*Held) error) bool {
	t.Helper()
	ops := 0
	h, err := hold(&hookedFiles{quickFiles{}, func(string, string) error {
		if ops++; ops >= stop {
			return errCrash
		}
		return nil
	}}, dir, noWait)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = h.Close() }()
	err = change(h)
	if err != nil && !errors.Is(err, errCrash) && !strings.Contains(err.Error(), errCrash.Error()) {
		t.Fatalf("stop %d: %v", stop, err)
	}
	return err == nil
}
