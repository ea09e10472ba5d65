package wal

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// smallSegments makes segments end often.
const smallSegments = 4 << 10

// noWait does not wait for a held lock.
const noWait = -1

func testConfig(dir string) Config {
	return Config{
		Dir: dir, SegmentSize: smallSegments, RingBytes: -1, LockWait: noWait,
		Logger: slog.New(slog.DiscardHandler),
	}
}

func mustOpen(t testing.TB, cfg Config) *Log {
	t.Helper()
	l, err := Open(cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil && !errors.Is(err, ErrClosed) && l.Err() == nil {
			t.Errorf("Close: %v", err)
		}
	})
	return l
}

func mustClose(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

// testEntry makes entry index with bytes that only it has.
func testEntry(index, term uint64, size int) *raft.Log {
	data := bytes.Repeat(fmt.Appendf(nil, "%d/%d.", index, term), size/3+1)[:size]
	return &raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: data}
}

func testEntries(from, to, term uint64, size int) []*raft.Log {
	var logs []*raft.Log
	for i := from; i <= to; i++ {
		logs = append(logs, testEntry(i, term, size))
	}
	return logs
}

func mustStore(t testing.TB, l *Log, logs ...*raft.Log) {
	t.Helper()
	if err := l.StoreLogs(logs); err != nil {
		t.Fatalf("StoreLogs: %v", err)
	}
}

// fill stores entries from to to, a few at a time.
func fill(t testing.TB, l *Log, from, to, term uint64, size int) {
	t.Helper()
	for from <= to {
		next := min(from+2, to)
		mustStore(t, l, testEntries(from, next, term, size)...)
		from = next + 1
	}
}

func sameEntry(got, want *raft.Log) error {
	if got.Index != want.Index || got.Term != want.Term || got.Type != want.Type ||
		!bytes.Equal(got.Data, want.Data) || !bytes.Equal(got.Extensions, want.Extensions) || !got.AppendedAt.IsZero() {
		return fmt.Errorf("got entry %d of term %d with %d bytes, want %d of %d with %d",
			got.Index, got.Term, len(got.Data), want.Index, want.Term, len(want.Data))
	}
	return nil
}

// wantEntries holds the log against exactly entries from to to.
func wantEntries(t testing.TB, l *Log, from, to, term uint64, size int) {
	t.Helper()
	first, err := l.FirstIndex()
	if err != nil {
		t.Fatalf("FirstIndex: %v", err)
	}
	last, err := l.LastIndex()
	if err != nil {
		t.Fatalf("LastIndex: %v", err)
	}
	if first != from || last != to {
		t.Fatalf("log holds %d to %d, want %d to %d", first, last, from, to)
	}
	for i := from; i <= to && to > 0; i++ {
		var got raft.Log
		if err := l.GetLog(i, &got); err != nil {
			t.Fatalf("GetLog(%d): %v", i, err)
		}
		if err := sameEntry(&got, testEntry(i, term, size)); err != nil {
			t.Fatal(err)
		}
	}
}

// segmentFiles lists the segments' paths, ascending.
func segmentFiles(t testing.TB, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, segmentsDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatalf("copying %s: %v", from, err)
	}
	return to
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func putFile(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o640); err != nil {
		t.Fatal(err)
	}
}

// snapshotOf remembers all files of a directory but the lock, to tell that nothing was changed.
func snapshotOf(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == lockName {
			return err
		}
		b, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, dir)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// wantDamage opens dir and requires a CorruptError, and that nothing was changed.
func wantDamage(t testing.TB, cfg Config) *CorruptError {
	t.Helper()
	before := snapshotOf(t, cfg.Dir)
	l, err := Open(cfg)
	if err == nil {
		mustClose(t, l)
		t.Fatalf("damaged log was opened")
	}
	var damage *CorruptError
	if !errors.As(err, &damage) {
		t.Fatalf("got %v, want a CorruptError", err)
	}
	for _, part := range []string{cfg.Dir, "expected", "found", "`forebay wal verify`"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error does not say %q: %v", part, err)
		}
	}
	after := snapshotOf(t, cfg.Dir)
	if len(before) != len(after) {
		t.Errorf("refusing to open changed the directory: %d files, then %d", len(before), len(after))
	}
	for name, b := range before {
		if after[name] != b {
			t.Errorf("refusing to open changed %s", name)
		}
	}
	return damage
}

// wantRefused is wantDamage for who does not look at the damage.
func wantRefused(t testing.TB, cfg Config) {
	t.Helper()
	if d := wantDamage(t, cfg); d == nil {
		t.Fatal("no damage")
	}
}

// waitTrim waits until everything that may be trimmed is gone, whoever trims:
// trims take turns.
func waitTrim(t testing.TB, l *Log) {
	t.Helper()
	if err := l.trim(); err != nil {
		t.Fatalf("trim: %v", err)
	}
}

// testWait bounds waiting for what must come.
const testWait = 10 * time.Second

// panics tells whether fn does.
func panics(fn func()) (did bool) {
	defer func() { did = recover() != nil }()
	fn()
	return
}
