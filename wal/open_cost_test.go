package wal

import (
	"maps"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// meteredFiles counts operations and bytes by the kind of file, while it is on.
type meteredFiles struct {
	Files
	mu     sync.Mutex
	counts map[string]int64
}

func (m *meteredFiles) count(what string, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts[what] += n
}

// kindOf tells segments and the small files apart.
func (m *meteredFiles) kindOf(name string) string {
	switch {
	case strings.Contains(name, "/"+segmentsDir):
		return "segment"
	case strings.Contains(name, "/"+manifestName):
		return "manifest"
	}
	return "other"
}

func (m *meteredFiles) Open(name string, flag int) (File, error) {
	kind := m.kindOf(name)
	m.count(kind+" opens", 1)
	f, err := m.Files.Open(name, flag)
	if err != nil {
		return nil, err
	}
	return &meteredFile{f, kind, m}, nil
}

func (m *meteredFiles) Remove(name string) error { m.count("removes", 1); return m.Files.Remove(name) }

func (m *meteredFiles) Rename(a, b string) error { m.count("renames", 1); return m.Files.Rename(a, b) }

func (m *meteredFiles) SyncDir(d string) error {
	m.count("directory syncs", 1)
	return m.Files.SyncDir(d)
}

func (m *meteredFiles) List(dir string) ([]os.DirEntry, error) {
	m.count("lists", 1)
	return m.Files.List(dir)
}

type meteredFile struct {
	File
	kind string
	m    *meteredFiles
}

func (f *meteredFile) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(b, off)
	f.m.count(f.kind+" reads", 1)
	f.m.count(f.kind+" bytes read", int64(n))
	return n, err
}

func (f *meteredFile) WriteAt(b []byte, off int64) (int, error) {
	f.m.count(f.kind+" bytes written", int64(len(b)))
	return f.File.WriteAt(b, off)
}

func (f *meteredFile) Sync() error {
	f.m.count(f.kind+" syncs", 1)
	return f.File.Sync()
}

// TestOpenDoesNotGrowWithTheLog: a log a hundred times as long is opened with the same operations and
// the same bytes, but for the list of names and 32 bytes a segment of the manifest.
func TestOpenDoesNotGrowWithTheLog(t *testing.T) {
	const perSegment, size, behindSnapshot = 12, 300, 30
	cost := func(segments uint64) (map[string]int64, int) {
		cfg := testConfig(t.TempDir())
		cfg.Files = quickFiles{}
		l := mustOpen(t, cfg)
		last := segments*perSegment + 5
		fill(t, l, 1, last, 1, size)
		count := l.Stats().Segments
		mustClose(t, l)
		metered := &meteredFiles{Files: quickFiles{}, counts: map[string]int64{}}
		cfg.Files = metered
		cfg.SnapshotIndex, cfg.SnapshotTerm, cfg.SnapshotTaken = last-behindSnapshot, 1, true
		mustOpen(t, cfg)
		metered.mu.Lock()
		defer metered.mu.Unlock()
		return maps.Clone(metered.counts), count
	}
	short, few := cost(10)
	long, many := cost(1000)
	if few < 10 || many < 90*few {
		t.Fatalf("%d and %d segments: this is no comparison", few, many)
	}
	long["manifest bytes read"] -= int64(many-few) * sealSize
	if diff := cmp.Diff(short, long); diff != "" {
		t.Errorf("opening %d segments (-) and %d (+), seals aside:\n%s", few, many, diff)
	}
	if short["segment bytes read"] == 0 || short["segment opens"] == 0 {
		t.Errorf("nothing was counted: %v", short)
	}
}

// TestBytesBeforeIsTheSumOfSizes: what each segment knows of those before it stays right
// whatever the log goes through.
func TestBytesBeforeIsTheSumOfSizes(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.Files = quickFiles{}
	l := mustOpen(t, cfg)
	check := func(after string) {
		t.Helper()
		l.mu.RLock()
		segs := l.segs
		l.mu.RUnlock()
		var sum int64
		for _, s := range segs {
			if got := l.BytesBefore(s.first); got != sum {
				t.Fatalf("after %s %d bytes lie before entry %d, want %d", after, got, s.first, sum)
			}
			sum += s.size
		}
		if got := l.BytesBefore(l.last + 1000); got != sum || sum != l.Bytes() {
			t.Fatalf("after %s all is %d bytes, want %d and %d", after, got, sum, l.Bytes())
		}
		if got := l.BytesBefore(1); got != 0 {
			t.Fatalf("after %s %d bytes lie before the first entry", after, got)
		}
	}
	check("making it")
	fill(t, l, 1, 200, 1, 300)
	check("appending")
	l.SetFloor(100)
	if err := l.DeleteRange(1, 99); err != nil {
		t.Fatal(err)
	}
	waitTrim(t, l)
	check("a trim")
	l.SetApplied(120)
	if err := l.DeleteRange(150, 200); err != nil {
		t.Fatal(err)
	}
	check("a cut")
	fill(t, l, 150, 260, 2, 300)
	check("going on")
	mustClose(t, l)
	cfg.SnapshotIndex, cfg.SnapshotTerm = 240, 2
	l = mustOpen(t, cfg)
	check("opening")
	fill(t, l, 261, 300, 2, 300)
	check("going on after opening")
	l.Installed(400, 3)
	if err := l.DeleteRange(1, 300); err != nil {
		t.Fatal(err)
	}
	check("emptying")
	fill(t, l, 401, 440, 3, 300)
	check("beginning anew")
}
