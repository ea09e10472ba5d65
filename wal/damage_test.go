package wal

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// damagedLog has 120 entries in a dozen segments.
func damagedLog(t *testing.T) Config {
	t.Helper()
	cfg := testConfig(t.TempDir())
	l := mustOpen(t, cfg)
	fill(t, l, 1, 120, 1, 300)
	mustClose(t, l)
	return cfg
}

func TestDamageIsSaid(t *testing.T) {
	flip := func(at int) func(*testing.T, string, []string) {
		return func(t *testing.T, _ string, segs []string) {
			b := readFile(t, segs[3])
			b[at] ^= 0x10
			putFile(t, segs[3], b)
		}
	}
	remove := func(i int) func(*testing.T, string, []string) {
		return func(t *testing.T, _ string, segs []string) {
			if err := os.Remove(segs[(i+len(segs))%len(segs)]); err != nil {
				t.Fatal(err)
			}
		}
	}
	frame := int(diskSize(300))
	cases := map[string]struct {
		hurt    func(t *testing.T, dir string, segs []string)
		segment int    // which segment the error must name; -1: none of them
		index   uint64 // the entry it must name
		say     string
	}{
		"flipped payload":          {flip(2*frame + 200), 3, 39, "checksum"},
		"flipped length":           {flip(2 * frame), 3, 39, "length"},
		"flipped header":           {flip(2*frame + 10), 3, 39, "checksum"},
		"flipped mark in a header": {flip(2*frame + 2 + 40), 3, 39, "checksum"},
		"missing first segment":    {remove(0), 0, 1, "no such file"},
		"missing middle segment":   {remove(4), 4, 49, "no such file"},
		"missing last segment":     {remove(-1), -2, 0, "no such file"},
		"no segment at all": {func(t *testing.T, _ string, segs []string) {
			for _, s := range segs {
				if err := os.Remove(s); err != nil {
					t.Fatal(err)
				}
			}
		}, 0, 1, "no segment at all"},
		"swapped segments": {func(t *testing.T, _ string, segs []string) {
			a, b := readFile(t, segs[2]), readFile(t, segs[5])
			putFile(t, segs[2], b)
			putFile(t, segs[5], a)
		}, 2, 25, "entry 61"},
		"segment of another time": {func(t *testing.T, dir string, segs []string) {
			other := testConfig(t.TempDir())
			l := mustOpen(t, other)
			fill(t, l, 1, 120, 2, 300)
			mustClose(t, l)
			putFile(t, segs[2], readFile(t, segmentFiles(t, other.Dir)[2]))
		}, 2, 0, "chain"},
		"shortened segment": {func(t *testing.T, _ string, segs []string) {
			if err := os.Truncate(segs[3], int64(5*frame)); err != nil {
				t.Fatal(err)
			}
		}, 3, 0, "bytes"},
		"extended segment": {func(t *testing.T, _ string, segs []string) {
			putFile(t, segs[3], append(readFile(t, segs[3]), make([]byte, 10)...))
		}, 3, 0, "bytes"},
		"zeroed segment": {func(t *testing.T, _ string, segs []string) {
			putFile(t, segs[3], make([]byte, len(readFile(t, segs[3]))))
		}, 3, 37, "length 0"},
		"foreign file": {func(t *testing.T, dir string, _ []string) {
			putFile(t, filepath.Join(dir, segmentsDir, "00000000000000000002.bak"), nil)
		}, -1, 0, "foreign file"},
		"leftover of the library's truncation": {func(t *testing.T, dir string, _ []string) {
			putFile(t, filepath.Join(dir, segmentsDir, "00000000000000000025.START"), nil)
		}, -1, 0, "foreign file"},
		"directory among the segments": {func(t *testing.T, dir string, _ []string) {
			if err := os.Mkdir(filepath.Join(dir, segmentsDir, "00000000000000000002"), 0o750); err != nil {
				t.Fatal(err)
			}
		}, -1, 0, "foreign file"},
		"no mark": {func(t *testing.T, dir string, _ []string) {
			if err := os.Remove(pathsOf(dir).mark); err != nil {
				t.Fatal(err)
			}
		}, -1, 0, "the mark"},
		"wiped mark": {func(t *testing.T, dir string, _ []string) {
			putFile(t, pathsOf(dir).mark, make([]byte, slotArea))
		}, -1, 0, "neither"},
		"no manifest": {func(t *testing.T, dir string, _ []string) {
			if err := os.Remove(pathsOf(dir).manifest); err != nil {
				t.Fatal(err)
			}
		}, -1, 0, "manifest"},
		"wiped manifest": {func(t *testing.T, dir string, _ []string) {
			putFile(t, pathsOf(dir).manifest, nil)
		}, -1, 0, "neither"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := damagedLog(t)
			segs := segmentFiles(t, cfg.Dir)
			c.hurt(t, cfg.Dir, segs)
			d := wantDamage(t, cfg)
			if c.segment >= 0 && filepath.Base(d.Segment) != filepath.Base(segs[c.segment]) {
				t.Errorf("names segment %s, want %s", d.Segment, segs[c.segment])
			}
			if d.Index != c.index && c.segment != -2 {
				t.Errorf("names entry %d, want %d", d.Index, c.index)
			}
			if !strings.Contains(d.Error(), c.say) {
				t.Errorf("does not say %q: %v", c.say, d)
			}
			// The offline reader says it too, and still reads the rest.
			r, err := Inspect(cfg.Dir)
			if err != nil {
				t.Fatal(err)
			}
			rep, err := r.Verify(nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(rep.Damage) == 0 || rep.Torn != nil {
				t.Errorf("Verify found %v, torn %v", rep.Damage, rep.Torn)
			}
		})
	}
}

// TestDamageBelowTheSnapshotIsFoundByReading: open does not scan what the newest
// snapshot covers; a read finds it, serves nothing, and fails the log.
func TestDamageBelowTheSnapshotIsFoundByReading(t *testing.T) {
	cfg := damagedLog(t)
	cfg.SnapshotIndex, cfg.SnapshotTerm = 100, 1
	segs := segmentFiles(t, cfg.Dir)
	b := readFile(t, segs[3])
	b[2*diskSize(300)+200] ^= 1
	putFile(t, segs[3], b)
	var reported error
	cfg.OnFailure = func(err error) { reported = err }
	l := mustOpen(t, cfg)
	e := testEntry(7, 7, 7)
	err := l.GetLog(39, e)
	var d *CorruptError
	if !errors.As(err, &d) || d.Index != 39 || e.Index != 7 {
		t.Fatalf("reading damage: %v, filled out %d", err, e.Index)
	}
	if !errors.Is(reported, err) {
		t.Fatalf("reported %v", reported)
	}
	if err := l.StoreLog(testEntry(121, 1, 10)); !errors.As(err, &d) {
		t.Fatalf("storing after damage was found: %v", err)
	}
}

func TestLostSealsAreMadeAgain(t *testing.T) {
	cfg := damagedLog(t)
	path := pathsOf(cfg.Dir).manifest
	whole := readFile(t, path)
	for name, b := range map[string][]byte{
		"half a seal":     whole[:len(whole)-sealSize/2],
		"five seals lost": whole[:len(whole)-5*sealSize],
		"none left":       whole[:slotArea],
		"a zeroed seal":   append(append(append([]byte(nil), whole[:slotArea]...), make([]byte, sealSize)...), whole[slotArea+sealSize:]...),
	} {
		t.Run(name, func(t *testing.T) {
			putFile(t, path, b)
			l := mustOpen(t, cfg)
			wantEntries(t, l, 1, 120, 1, 300)
			mustClose(t, l)
			_, seals, lost, err := decodeManifest(readFile(t, path), path)
			if err != nil || lost != 0 || len(seals) != len(segmentFiles(t, cfg.Dir))-1 {
				t.Fatalf("%d seals, %d lost, %v", len(seals), lost, err)
			}
		})
	}
}

func TestNewerVersionIsNotTouched(t *testing.T) {
	for _, file := range []string{manifestName, markName} {
		cfg := damagedLog(t)
		path := filepath.Join(cfg.Dir, file)
		b := readFile(t, path)
		for _, at := range []int{8, slotSize + 8} {
			binary.LittleEndian.PutUint32(b[at:], 7)
		}
		putFile(t, path, b)
		before := snapshotOf(t, cfg.Dir)
		_, err := Open(cfg)
		var newer *VersionError
		if !errors.As(err, &newer) || newer.Version != 7 || newer.File != path {
			t.Fatalf("%s of a newer version: %v", file, err)
		}
		if _, err := Inspect(cfg.Dir); !errors.As(err, &newer) {
			t.Fatalf("inspecting a newer version: %v", err)
		}
		for name, was := range before {
			if string(readFile(t, filepath.Join(cfg.Dir, name))) != was {
				t.Errorf("%s was touched", name)
			}
		}
	}
}

func TestOneTornSlotIsNoDamage(t *testing.T) {
	for _, file := range []string{manifestName, markName} {
		cfg := damagedLog(t)
		l := mustOpen(t, cfg)
		l.SetFloor(60)
		if err := l.DeleteRange(1, 100); err != nil {
			t.Fatal(err)
		}
		waitTrim(t, l)
		mustClose(t, l)
		path := filepath.Join(cfg.Dir, file)
		b := readFile(t, path)
		size := map[string]int{manifestName: manifestSize, markName: markSize}[file]
		if slotVersion(b, size, string(b[:8])) != formatVersion || slotVersion(b[slotSize:], size, string(b[:8])) != formatVersion {
			t.Fatalf("%s: want both slots in use", file)
		}
		older := 0
		if slotSeq(b, manifestMagic) > slotSeq(b[slotSize:], manifestMagic) {
			older = slotSize
		}
		clear(b[older+20 : older+40])
		putFile(t, path, b)
		cfg.SnapshotIndex, cfg.SnapshotTerm = 100, 1
		mustClose(t, mustOpen(t, cfg))
	}
}

func TestDirectoryThatCannotBeUsed(t *testing.T) {
	t.Run("not a directory", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "file")
		putFile(t, path, nil)
		if _, err := Open(testConfig(path)); !errors.Is(err, syscall.ENOTDIR) || !strings.Contains(err.Error(), path) {
			t.Fatalf("got %v", err)
		}
	})
	for _, errno := range []error{syscall.EROFS, syscall.ENOSPC} {
		t.Run(errno.Error(), func(t *testing.T) {
			cfg := testConfig(t.TempDir())
			files := newFailingFiles("create", "", errno)
			files.armed.Store(true)
			cfg.Files = files
			if _, err := Open(cfg); !errors.Is(err, errno) || !strings.Contains(err.Error(), cfg.Dir) {
				t.Fatalf("got %v", err)
			}
			files.armed.Store(false)
			mustClose(t, mustOpen(t, cfg))
		})
	}
	t.Run("no log to inspect", func(t *testing.T) {
		if _, err := Inspect(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("got %v", err)
		}
	})
}
