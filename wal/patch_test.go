package wal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// exportOf exports entries first to last of a log.
func exportOf(t *testing.T, dir string, first, last uint64) *Export {
	t.Helper()
	path := filepath.Join(t.TempDir(), "export")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewExport(f, [16]byte{7})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mustInspect(t, dir).VerifyEntries(func(e *Entry) {
		if e.Index >= first && e.Index <= last {
			if err := w.Add(e); err != nil {
				t.Fatal(err)
			}
		}
	}, nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	x, err := OpenExport(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.Close() })
	return x
}

// copyOf copies a log's directory.
func copyOf(t *testing.T, cfg Config) Config {
	t.Helper()
	to := testConfig(t.TempDir())
	if err := os.CopyFS(to.Dir, os.DirFS(cfg.Dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestPatch(t *testing.T) {
	frame := int(diskSize(300))
	flip := func(seg, at int) func(*testing.T, string, []string) {
		return func(t *testing.T, _ string, s []string) {
			b := readFile(t, s[seg])
			b[at] ^= 0x10
			putFile(t, s[seg], b)
		}
	}
	at := func(seg int, change func([]byte) []byte) func(*testing.T, string, []string) {
		return func(t *testing.T, _ string, s []string) { putFile(t, s[seg], change(readFile(t, s[seg]))) }
	}
	cases := map[string]struct {
		hurt    func(t *testing.T, dir string, segs []string)
		entries uint64
	}{
		"a flipped bit":             {flip(3, 2*frame+200), 1},
		"a flipped header":          {flip(3, 2*frame+10), 1},
		"a flipped length":          {flip(3, 2*frame), 1},
		"the first entry":           {flip(0, 70), 1},
		"the last finished segment": {flip(9, 11*frame+99), 1},
		"the tail":                  {flip(10, 100), 1},
		"the end of the tail":       {at(10, func(b []byte) []byte { return b[:len(b)-5] }), 1},
		"an empty tail":             {at(10, func([]byte) []byte { return nil }), 5},
		"a zeroed segment":          {at(3, func(b []byte) []byte { clear(b); return b }), 12},
		"a short segment":           {at(3, func(b []byte) []byte { return b[:5*frame+9] }), 7},
		"a long segment":            {at(3, func(b []byte) []byte { return append(b, 1, 2, 3) }), 0},
		"other entries":             {func(t *testing.T, _ string, s []string) { otherEntries(t, s[3]) }, 12},
		"a missing segment":         {func(_ *testing.T, _ string, s []string) { os.Remove(s[4]) }, 12},
		"the missing first segment": {func(_ *testing.T, _ string, s []string) { os.Remove(s[0]) }, 12},
		"the missing tail":          {func(_ *testing.T, _ string, s []string) { os.Remove(s[10]) }, 5},
		"several missing":           {func(_ *testing.T, _ string, s []string) { os.Remove(s[4]); os.Remove(s[5]); os.Remove(s[10]) }, 29},
		"no segment at all": {func(_ *testing.T, _ string, s []string) {
			for _, p := range s {
				os.Remove(p)
			}
		}, 125},
		"a foreign file": {func(t *testing.T, d string, _ []string) { putFile(t, filepath.Join(d, segmentsDir, "x"), []byte("x")) }, 0},
	}
	whole := testConfig(t.TempDir())
	l := mustOpen(t, whole)
	fill(t, l, 1, 125, 1, 300)
	mustClose(t, l)
	x := exportOf(t, whole.Dir, 1, 125)
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := copyOf(t, whole)
			tc.hurt(t, cfg.Dir, segmentFiles(t, cfg.Dir))
			before := contents(t, cfg.Dir)
			h := mustHold(t, cfg.Dir)
			done, err := h.Patch(x, time.Now())
			if err != nil || done.Entries != tc.entries || len(done.Lacking) > 0 {
				t.Fatalf("%+v, %v; want %d entries put in", done, err, tc.entries)
			}
			wantNothingLost(t, cfg.Dir, done.Quarantine, before)
			if again, err := h.Patch(x, time.Now()); err != nil || again.Quarantine != "" {
				t.Errorf("again: %+v, %v", again, err)
			}
			_ = h.Close()
			wantWhole(t, cfg, 1, 125)
		})
	}
}

func TestPatchLeavesWhatItCannotMakeWhole(t *testing.T) {
	cfg := damagedLog(t)
	x := exportOf(t, cfg.Dir, 13, 30)
	segs := segmentFiles(t, cfg.Dir)
	for _, i := range []int{1, 2} { // entries 13 to 24, 25 to 36
		putFile(t, segs[i], nil)
	}
	h := mustHold(t, cfg.Dir)
	done, err := h.Patch(x, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if done.Entries != 12 || len(done.Lacking) != 1 || done.Lacking[0] != (Run{31, 36}) {
		t.Errorf("%+v, want 12 entries put in and 31 to 36 lacking", done)
	}
}

// TestPatchRefusesOtherEntries: an entry goes in only if all that the log still tells of it agrees.
func TestPatchRefusesOtherEntries(t *testing.T) {
	cases := map[string]func(t *testing.T, dir string, segs []string){
		"the header tells": func(t *testing.T, _ string, s []string) { hurtAt(t, s[3], 2*int(diskSize(300))+200) },
		"the seal tells":   func(t *testing.T, _ string, s []string) { putFile(t, s[3], nil) },
		"the mark tells":   func(t *testing.T, _ string, s []string) { putFile(t, s[10], nil) },
		"the neighbours tell": func(t *testing.T, d string, s []string) {
			b := readFile(t, filepath.Join(d, manifestName)) // no seals
			putFile(t, filepath.Join(d, manifestName), b[:slotArea])
			b = readFile(t, s[3])
			clear(b[5*diskSize(300) : 6*diskSize(300)])
			putFile(t, s[3], b)
		},
	}
	whole := testConfig(t.TempDir())
	l := mustOpen(t, whole)
	fill(t, l, 1, 125, 2, 300)
	mustClose(t, l)
	other := testConfig(t.TempDir())
	l = mustOpen(t, other)
	fill(t, l, 1, 125, 1, 300)
	mustClose(t, l)
	x := exportOf(t, other.Dir, 1, 125)
	for name, hurt := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := copyOf(t, whole)
			hurt(t, cfg.Dir, segmentFiles(t, cfg.Dir))
			before := contents(t, cfg.Dir)
			var different *DifferentError
			if done, err := mustHold(t, cfg.Dir).Patch(x, time.Now()); !errors.As(err, &different) {
				t.Errorf("%+v, %v", done, err)
			}
			for rel, want := range before {
				if contents(t, cfg.Dir)[rel] != want {
					t.Errorf("%s was changed", rel)
				}
			}
		})
	}
}

func hurtAt(t *testing.T, path string, at int) {
	t.Helper()
	b := readFile(t, path)
	b[at] ^= 0x10
	putFile(t, path, b)
}

func TestPatchAtEachCrashPoint(t *testing.T) {
	x := exportOf(t, damagedLog(t).Dir, 1, 120)
	n := crashPoints(t, func(t *testing.T, dir string) {
		segs := segmentFiles(t, dir)
		hurtAt(t, segs[2], 99)
		if err := os.Remove(segs[4]); err != nil {
			t.Fatal(err)
		}
	}, func(h *Held) error {
		_, err := h.Patch(x, time.Now())
		return err
	}, func(t *testing.T, cfg Config) { wantWhole(t, cfg, 1, 120) })
	t.Logf("%d crash points", n)
}

// TestExportIsCheckedWhole: no byte of an export can be changed or cut off unseen.
func TestExportIsCheckedWhole(t *testing.T) {
	cfg := testConfig(t.TempDir())
	l := mustOpen(t, cfg)
	fill(t, l, 1, 5, 1, 30)
	mustClose(t, l)
	x := exportOf(t, cfg.Dir, 2, 4)
	if x.Entries != 3 || x.LogID != [16]byte{7} || !sameRuns(x.Runs, []Run{{2, 4}}) {
		t.Fatalf("%+v", x)
	}
	size, _ := x.f.Size()
	b, err := readUpTo(x.f, int(size))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x")
	for i := range b {
		putFile(t, path, b[:i])
		wantBadExport(t, path)
		c := append([]byte(nil), b...)
		c[i] ^= 0x40
		putFile(t, path, c)
		wantBadExport(t, path)
	}
	putFile(t, path, append(b, 0))
	wantBadExport(t, path)
}

func wantBadExport(t *testing.T, path string) {
	t.Helper()
	x, err := OpenExport(path)
	var newer *VersionError
	if !errors.Is(err, ErrExport) && !errors.As(err, &newer) {
		t.Fatalf("%+v, %v", x, err)
	}
}

// FuzzExport: whatever the bytes, an export is whole or refused.
func FuzzExport(f *testing.F) {
	var b bytes.Buffer
	w, err := NewExport(&b, [16]byte{1})
	if err != nil {
		f.Fatal(err)
	}
	e := testEntry(5, 2, 40)
	_, crc := appendFrame(nil, e, syncMark{})
	if err := errors.Join(w.Add(&Entry{Index: 5, Term: 2, Type: e.Type, Data: e.Data, CRC: crc}), w.Close()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(exportMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "x")
		putFile(t, path, data)
		x, err := OpenExport(path)
		if err != nil {
			return
		}
		for _, r := range x.Runs {
			for i := r.First; i <= r.Last; i++ {
				if frame, err := x.bytes(x.index[i]); err != nil || len(frame) < headerSize {
					t.Errorf("entry %d: %v", i, err)
				}
			}
		}
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
}
