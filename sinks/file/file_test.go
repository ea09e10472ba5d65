package file

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/record"
	"forebay/sinks"
	"forebay/sinks/lines"
	"forebay/sinks/sinktest"
)

var update = flag.Bool("update", false, "write the golden files anew")

func newSink(t testing.TB, cfg Config) *Sink {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func opened(t testing.TB, cfg Config, id sinks.Identity) *Sink {
	t.Helper()
	s := newSink(t, cfg)
	if err := s.Open(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeSink(t, s) })
	return s
}

func closeSink(t testing.TB, s *Sink) {
	t.Helper()
	if err := s.Close(); err != nil && !errors.Is(err, sinktest.ErrCrashed) {
		t.Errorf("closing: %v", err)
	}
}

func deliver(t testing.TB, s *Sink, term, seq uint64, recs []record.Record) {
	t.Helper()
	if err := s.Deliver(t.Context(), sinktest.NewBatch(term, seq, recs), sinktest.Accept); err != nil {
		t.Fatal(err)
	}
}

// table is a mapping with columns.
type table struct{}

func (table) Columns() []string { return []string{"offset", "key", "value"} }

func (table) Map(rec *record.Record, row *sinks.Row) (bool, error) {
	if rec.Offset == 102 {
		return false, nil
	}
	row.Record, row.Value = rec, rec.Value
	row.Columns = append(row.Columns[:0], rec.Offset, string(rec.Key), rec.Value)
	return true, nil
}

// TestDirectoryGolden pins the names and the content of everything in a directory.
func TestDirectoryGolden(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
	}{
		{"jsonl", Config{}},
		{"raw-shared", Config{Format: lines.Raw, Shared: true}},
		{"csv", Config{Format: lines.CSV, Encoding: lines.UTF8, Mapper: table{}}},
		{"jsonl-gzip", Config{Compression: Gzip}},
		{"raw-zstd", Config{Compression: Zstd, Format: lines.Raw}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.Dir = t.TempDir()
			id := sinktest.Identity(7, 41)
			s := opened(t, c.cfg, id)
			deliver(t, s, 7, 41, sinktest.Records(100, 4))
			deliver(t, s, 7, 42, sinktest.Records(200, 1))
			if err := s.Advanced(t.Context(), record.BatchID{Seq: 42}, record.BatchID{Seq: 40}); err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			entries, err := os.ReadDir(c.cfg.Dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				fmt.Fprintf(&out, "== %s\n%s", e.Name(), readFinal(t, filepath.Join(c.cfg.Dir, e.Name())))
			}
			path := filepath.Join("testdata", c.name+".golden")
			if *update {
				if err := os.WriteFile(path, []byte(out.String()), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), out.String()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", path, diff)
			}
		})
	}
}

// TestCSVHeaderAfterRefusals: the header row comes once, before the first line
// that is written, and an attempt without lines makes no file.
func TestCSVHeaderAfterRefusals(t *testing.T) {
	dir := t.TempDir()
	s := opened(t, Config{Dir: dir, Format: lines.CSV, Encoding: lines.UTF8, Mapper: table{}}, sinktest.Identity(1, 1))
	recs := sinktest.Records(100, 2)
	recs[0].Value = []byte{0xff}
	deliver(t, s, 1, 1, recs[:1])
	deliver(t, s, 1, 2, recs)
	if _, err := os.Stat(filepath.Join(dir, "batch-0-00000000000000000001.csv")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a batch without lines made a file: %v", err)
	}
	got := string(readFinal(t, filepath.Join(dir, "batch-0-00000000000000000002.csv")))
	if want := "offset,key,value\n101,page-3,\"{\"\"page\"\":\"\"p3\"\",\"\"clicks\"\":101}\"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestTemporaryNames: Open removes what lower terms of its lane left, and its own
// term's, and nothing of others who may still be at work.
func TestTemporaryNames(t *testing.T) {
	dir := t.TempDir()
	closeSink(t, opened(t, Config{Dir: dir, Shared: true}, sinktest.Identity(1, 1)))
	names := map[string]bool{ // name → stays
		".tmp-0-00000000000000000001-4-n2":   false,
		".tmp-0-00000000000000000009-5-n1":   false,
		".tmp-0-cursor-4-n-1-x":              false,
		".tmp-0-identity-1-n1":               false,
		".tmp-0-00000000000000000001-5-n2":   true,
		".tmp-0-00000000000000000001-6-n1":   true,
		".tmp-1-00000000000000000001-1-n1":   true,
		".tmp-10-00000000000000000001-1-n1":  true,
		".tmp-notes":                         true,
		"notes.txt":                          true,
		"batch-0-1.jsonl":                    true,
		"batch-0-00000000000000000001.jsonl": true,
	}
	for name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	opened(t, Config{Dir: dir, Shared: true}, sinktest.Identity(5, 1))
	for name, stays := range names {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != stays {
			t.Errorf("%s: stays is %v, want %v", name, err == nil, stays)
		}
	}
}

// TestAnySuffixCountsAsDelivered also for names that this version does not write.
func TestAnySuffixCountsAsDelivered(t *testing.T) {
	for _, suffix := range []string{".jsonl", ".csv.gz", ".raw.zst", ".parquet"} {
		dir := t.TempDir()
		closeSink(t, opened(t, Config{Dir: dir}, sinktest.Identity(1, 1)))
		name := "batch-0-00000000000000000003" + suffix
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o666); err != nil {
			t.Fatal(err)
		}
		s := opened(t, Config{Dir: dir}, sinktest.Identity(2, 3))
		deliver(t, s, 2, 3, sinktest.Records(0, 3))
		deliver(t, s, 2, 4, sinktest.Records(3, 3))
		found, err := filepath.Glob(filepath.Join(dir, "batch-*"))
		if err != nil || len(found) != 2 {
			t.Errorf("%s: the directory holds %q (%v), want %s and batch 4", suffix, found, err, name)
		}
	}
}

// TestNameTakenMeanwhile: a name that somebody else takes under our eyes is said
// once, and counts as delivered from then on.
func TestNameTakenMeanwhile(t *testing.T) {
	dir := t.TempDir()
	s := opened(t, Config{Dir: dir}, sinktest.Identity(1, 1))
	path := filepath.Join(dir, "batch-0-00000000000000000001.jsonl")
	b := sinktest.NewBatch(1, 1, sinktest.Records(0, 3))
	err := s.Deliver(t.Context(), b, func(context.Context, []record.Refusal) error {
		return os.WriteFile(path, []byte("theirs\n"), 0o666)
	})
	if !errors.Is(err, fs.ErrExist) || sinks.IsPermanent(err) {
		t.Fatalf("got %v, want a temporary %v", err, fs.ErrExist)
	}
	deliver(t, s, 1, 1, sinktest.Records(0, 3))
	if got, err := os.ReadFile(path); err != nil || string(got) != "theirs\n" {
		t.Errorf("the file is %q, %v", got, err)
	}
	if left := leftovers(t, dir); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestFileMovedAway: a consumer takes files below the cursor, and nothing makes
// them come back, neither a deposed leader nor a restart.
func TestFileMovedAway(t *testing.T) {
	dir := t.TempDir()
	older := opened(t, Config{Dir: dir, Shared: true}, sinktest.Identity(1, 1))
	newer := opened(t, Config{Dir: dir, Shared: true}, sinktest.Identity(2, 1))
	deliver(t, newer, 2, 1, sinktest.Records(0, 3))
	if err := newer.Advanced(t.Context(), record.BatchID{Seq: 2}, record.BatchID{Seq: 1}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "batch-0-00000000000000000001.jsonl")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := older.Deliver(t.Context(), sinktest.NewBatch(1, 1, sinktest.Records(0, 3)), sinktest.Accept); !errors.Is(err, sinks.ErrFenced) {
		t.Errorf("the deposed leader got %v, want %v", err, sinks.ErrFenced)
	}
	if err := older.Advanced(t.Context(), record.BatchID{Seq: 9}, record.BatchID{Seq: 1}); !errors.Is(err, sinks.ErrFenced) {
		t.Errorf("the deposed leader's cursor: got %v, want %v", err, sinks.ErrFenced)
	}
	deliver(t, newer, 2, 1, sinktest.Records(0, 3))
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("batch 1 came back: %v", err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "cursor-0")); err != nil || string(got) != "0-00000000000000000002\n" {
		t.Errorf("the cursor is %q, %v", got, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	write := func(name, content string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o666); err != nil {
				t.Fatal(err)
			}
		}
	}
	first := func(t *testing.T, dir string) {
		t.Helper()
		closeSink(t, opened(t, Config{Dir: dir}, sinktest.Identity(1, 5)))
	}
	id := func(change func(*sinks.Identity)) sinks.Identity {
		id := sinktest.Identity(2, 5)
		change(&id)
		return id
	}
	for _, c := range []struct {
		name  string
		setup []func(t *testing.T, dir string)
		id    sinks.Identity
		want  error
		says  string
	}{
		{"another node", []func(*testing.T, string){first}, id(func(i *sinks.Identity) { i.Node = "n2" }), sinks.ErrForeign, `it is of node "n1", and this is node "n2" (set shared = true`},
		{"another log", []func(*testing.T, string){first}, id(func(i *sinks.Identity) { i.LogID = "x" }), sinks.ErrForeign, "it is of log log-a, and this is log x (either another gateway named \"gw\" delivers into it, perhaps now, or this one's data directory was made anew"},
		{"an older log", []func(*testing.T, string){first}, id(func(i *sinks.Identity) { i.Next.Seq = 4 }), sinks.ErrAhead, "its next batch is 0-00000000000000000005, the log's is 0-00000000000000000004"},
		{"batches of nobody", []func(*testing.T, string){write("batch-3-00000000000000000001.csv", "x")}, sinktest.Identity(1, 1), sinks.ErrForeign, "holds batch-3-00000000000000000001.csv but no .forebay.json"},
		{"a newer format", []func(*testing.T, string){write(identityName, `{"format":2}`)}, sinktest.Identity(1, 1), nil, "has format 2, which this version does not know"},
		{"a broken identity", []func(*testing.T, string){write(identityName, `{`)}, sinktest.Identity(1, 1), nil, "is not readable"},
		{"a broken cursor", []func(*testing.T, string){first, write("cursor-0", "")}, sinktest.Identity(1, 5), nil, "remove it, and it is written anew"},
		{"a broken lock", []func(*testing.T, string){first, write(".lane-0", "what is this")}, sinktest.Identity(1, 5), nil, "not a term"},
		{"a node with a slash", nil, id(func(i *sinks.Identity) { i.Node = "a/b" }), nil, "cannot be part of a file name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, f := range c.setup {
				f(t, dir)
			}
			s := newSink(t, Config{Dir: dir})
			err := s.Open(t.Context(), c.id)
			if !sinks.IsPermanent(err) || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want a permanent error that says %q", err, c.says)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	_, err := New(Config{Format: "xml", Encoding: "hex", Compression: "lz4"})
	want := `dir is missing
format "xml": want "jsonl", "csv" or "raw"
encoding "hex": want "base64", "utf8" or "json"
compression "lz4": want "none", "gzip" or "zstd"`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// errFS fails each write with a given error.
type errFS struct {
	osFS
	err error
}

func (f errFS) Create(path string) (file, error) {
	inner, err := f.osFS.Create(path)
	return errFile{inner, f.err}, err
}

type errFile struct {
	file
	err error
}

func (f errFile) Write([]byte) (int, error) {
	return 0, &fs.PathError{Op: "write", Path: "x", Err: f.err}
}

// TestErrorsAnOperatorCures are temporary, and say what is the matter.
func TestErrorsAnOperatorCures(t *testing.T) {
	for _, c := range []struct {
		err  error
		says string
	}{
		{syscall.ENOSPC, "the disk is full, and the batch is tried again until there is room"},
		{syscall.EDQUOT, "the disk quota is used up"},
		{syscall.EACCES, "the gateway's user may not write there"},
		{syscall.EROFS, "the file system is read-only"},
	} {
		dir := t.TempDir()
		s := opened(t, Config{Dir: dir}, sinktest.Identity(1, 1))
		s.fs = errFS{err: c.err}
		err := s.Deliver(t.Context(), sinktest.NewBatch(1, 1, sinktest.Records(0, 3)), sinktest.Accept)
		if !errors.Is(err, c.err) || sinks.IsPermanent(err) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("got %v, want a temporary error that says %q", err, c.says)
		}
		if left := leftovers(t, dir); len(left) > 0 {
			t.Errorf("%v: left behind: %q", c.err, left)
		}
		s.fs = osFS{}
		deliver(t, s, 1, 1, sinktest.Records(0, 3))
	}
}

// TestPublishByLink is the way of file systems without an exclusive rename.
func TestPublishByLink(t *testing.T) {
	dir := t.TempDir()
	tmp, final := filepath.Join(dir, "tmp"), filepath.Join(dir, "final")
	write := func(path, content string) {
		if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write(tmp, "one")
	if err := publishByLink(tmp, final); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(tmp); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the temporary name is still there: %v", err)
	}
	write(tmp, "two")
	if err := publishByLink(tmp, final); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a taken name: got %v, want %v", err, fs.ErrExist)
	}
	if got, err := os.ReadFile(final); err != nil || string(got) != "one" {
		t.Errorf("the file is %q, %v", got, err)
	}
	if err := os.Remove(tmp); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(final, tmp); err != nil {
		t.Fatal(err)
	}
	if err := publishByLink(tmp, final); err != nil {
		t.Errorf("our own link, of which the answer was lost: %v", err)
	}
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"batch-0-00000000000000000001.jsonl", "batch-4294967295-18446744073709551615.csv.gz", "batch-0-1.x", "batch-", ".tmp-0-00000000000000000001-3-n-1", ".tmp-0-cursor-1-n", ".tmp--", "batch-0-00000000000000000000.x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if id, ok := parseFinal(name); ok {
			_, suffix, _ := strings.Cut(name, ".")
			if got := finalName(id, "."+suffix); got != name {
				t.Errorf("%q is read as %v, which is written %q", name, id, got)
			}
		}
		if lane, term, node, ok := parseTmp(name); ok && !strings.HasPrefix(name, tmpPrefix) {
			t.Errorf("%q is read as a temporary file %d %d %q", name, lane, term, node)
		}
	})
}
