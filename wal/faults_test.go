package wal

import (
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tidwall/wal"
)

// quickFiles does not sync: for tests that open a log hundreds of times.
type quickFiles struct{ osFiles }

func (q quickFiles) SyncDir(string) error { return nil }

func (q quickFiles) Open(name string, flag int) (File, error) {
	f, err := q.osFiles.Open(name, flag)
	if err != nil {
		return nil, err
	}
	return quickFile{f}, nil
}

type quickFile struct{ File }

func (quickFile) Sync() error { return nil }

// hookedFiles calls before in front of each operation that changes something;
// an error of it is the operation's. Operations are "create", "write", "sync",
// "truncate", "rename", "remove", "syncdir".
type hookedFiles struct {
	Files
	before func(op, name string) error
}

func (h *hookedFiles) Open(name string, flag int) (File, error) {
	if flag&os.O_CREATE != 0 {
		if err := h.before("create", name); err != nil {
			return nil, err
		}
	}
	f, err := h.Files.Open(name, flag)
	if err != nil {
		return nil, err
	}
	return &hookedFile{f, name, h}, nil
}

func (h *hookedFiles) Rename(from, to string) error {
	if err := h.before("rename", to); err != nil {
		return err
	}
	return h.Files.Rename(from, to)
}

func (h *hookedFiles) Remove(name string) error {
	if err := h.before("remove", name); err != nil {
		return err
	}
	return h.Files.Remove(name)
}

func (h *hookedFiles) SyncDir(dir string) error {
	if err := h.before("syncdir", dir); err != nil {
		return err
	}
	return h.Files.SyncDir(dir)
}

type hookedFile struct {
	File
	name string
	h    *hookedFiles
}

func (f *hookedFile) WriteAt(b []byte, off int64) (int, error) {
	if err := f.h.before("write", f.name); err != nil {
		return 0, err
	}
	return f.File.WriteAt(b, off)
}

func (f *hookedFile) Sync() error {
	if err := f.h.before("sync", f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *hookedFile) Truncate(size int64) error {
	if err := f.h.before("truncate", f.name); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

// errDead is what a process that was killed would see.
var errDead = errors.New("killed here")

// dyingFiles lets the first n changes through and none after: what is on disk
// then is what a kill in front of the next one leaves.
func dyingFiles(n int64) (files *hookedFiles, done *atomic.Int64) {
	done = new(atomic.Int64)
	return &hookedFiles{Files: quickFiles{}, before: func(string, string) error {
		if done.Load() >= n {
			return errDead
		}
		done.Add(1)
		return nil
	}}, done
}

// failingFiles fails one kind of operation on names that contain part, from
// when it is armed on.
type failingFiles struct {
	hookedFiles
	armed atomic.Bool
}

func newFailingFiles(op, part string, err error) *failingFiles {
	f := &failingFiles{}
	f.hookedFiles = hookedFiles{Files: osFiles{}, before: func(gotOp, name string) error {
		if f.armed.Load() && gotOp == op && strings.Contains(name, part) {
			return err
		}
		return nil
	}}
	return f
}

// countingFiles counts operations by kind, while it is on.
type countingFiles struct {
	hookedFiles
	mu     sync.Mutex
	counts map[string]int
}

func newCountingFiles() *countingFiles {
	c := &countingFiles{counts: map[string]int{}}
	c.hookedFiles = hookedFiles{Files: osFiles{}, before: func(op, _ string) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.counts[op]++
		return nil
	}}
	return c
}

func (c *countingFiles) take() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	got := c.counts
	c.counts = map[string]int{}
	return got
}

// failingLibrary fails a write, after having written a part of it, as a full disk does.
type failingLibrary struct {
	library
	path string
	part []byte
	err  error
}

func (f *failingLibrary) WriteBatch(*wal.Batch) error {
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = file.Write(f.part)
	return errors.Join(f.err, err, file.Close())
}
