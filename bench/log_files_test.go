package bench

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"forebay/wal"
)

// watchedFiles is the operating system under a log: it counts reads, and syncs
// only when asked to, for logs that are filled before they are measured.
type watchedFiles struct {
	reads atomic.Int64
	quick atomic.Bool
}

func (w *watchedFiles) Open(name string, flag int) (wal.File, error) {
	f, err := os.OpenFile(name, flag, 0o640)
	if err != nil {
		return nil, err
	}
	return &watchedFile{f, w}, nil
}

func (w *watchedFiles) List(dir string) ([]fs.DirEntry, error) { return os.ReadDir(dir) }
func (w *watchedFiles) MkdirAll(dir string) error              { return os.MkdirAll(dir, 0o750) }
func (w *watchedFiles) Rename(from, to string) error           { return os.Rename(from, to) }
func (w *watchedFiles) Remove(name string) error               { return os.Remove(name) }

func (w *watchedFiles) SyncDir(dir string) error {
	if w.quick.Load() {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

type watchedFile struct {
	*os.File
	w *watchedFiles
}

func (f *watchedFile) ReadAt(b []byte, off int64) (int, error) {
	f.w.reads.Add(1)
	return f.File.ReadAt(b, off)
}

func (f *watchedFile) Sync() error {
	if f.w.quick.Load() {
		return nil
	}
	return f.File.Sync()
}

func (f *watchedFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// entryBytes is the size of the entries of a log that is filled, that of a block.
const entryBytes = 256 << 10

// appendEntries stores count entries of entryBytes behind last, group by group, and returns the new last.
func appendEntries(l *wal.Log, data []byte, last uint64, count, group int) (uint64, error) {
	logs := make([]*raft.Log, 0, group)
	for end := last + uint64(count); last < end; {
		logs = logs[:0]
		for len(logs) < group && last < end {
			last++
			logs = append(logs, &raft.Log{Index: last, Term: 1, Type: raft.LogCommand, Data: data})
		}
		if err := l.StoreLogs(logs); err != nil {
			return last, err
		}
	}
	return last, nil
}

// forget drops what the page cache has of the files below dir, after they are synced.
func forget(t testing.TB, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	})
	if err != nil {
		t.Fatal(err)
	}
}
