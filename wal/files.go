package wal

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Files is the file layer under everything that the log does itself: manifest,
// mark, syncs, cuts, removals, reads. The library's own writes do not pass it.
// Paths are as Config.Dir gave them. The default is the operating system; tests
// record, fail or delay what passes here.
type Files interface {
	// Open opens name with the flags of os.OpenFile; new files get mode 0640.
	Open(name string, flag int) (File, error)
	// List returns the directory's entries sorted by name.
	List(dir string) ([]fs.DirEntry, error)
	// MkdirAll makes a directory and its parents, mode 0750.
	MkdirAll(dir string) error
	// Rename replaces to by from.
	Rename(from, to string) error
	// Remove removes one file.
	Remove(name string) error
	// SyncDir makes creations, renames and removals in dir durable.
	SyncDir(dir string) error
}

// File is one open file of Files.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Truncate sets the size.
	Truncate(size int64) error
	// Sync makes what was written durable.
	Sync() error
	// Size returns the size in bytes.
	Size() (int64, error)
}

// osFiles is the operating system.
type osFiles struct{}

func (osFiles) Open(name string, flag int) (File, error) {
	f, err := os.OpenFile(name, flag, 0o640)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFiles) List(dir string) ([]fs.DirEntry, error) { return os.ReadDir(dir) }
func (osFiles) MkdirAll(dir string) error              { return os.MkdirAll(dir, 0o750) }
func (osFiles) Rename(from, to string) error           { return os.Rename(from, to) }
func (osFiles) Remove(name string) error               { return os.Remove(name) }

func (osFiles) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readAheader is a file layer that can be told what is read next.
type readAheader interface{ readAhead(name string) }

// readAhead lets the system begin to read a file. It is advice: nothing depends on it.
func (osFiles) readAhead(name string) {
	f, err := os.Open(name)
	if err != nil {
		return // whoever reads it says why
	}
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_WILLNEED)
	_ = f.Close()
}

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// writeFile puts data under path by temporary name, sync, rename and directory
// sync: afterwards path holds either what it held before or data, durably. The
// returned file is open for reading and writing.
func writeFile(files Files, dir, path string, data []byte) (File, error) {
	tmp := path + tempSuffix
	f, err := files.Open(tmp, os.O_CREATE|os.O_RDWR|os.O_TRUNC)
	if err != nil {
		return nil, err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = files.Rename(tmp, path)
	}
	if err == nil {
		err = files.SyncDir(dir)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// readUpTo reads the first n bytes of f, or all of a shorter one.
func readUpTo(f File, n int) ([]byte, error) {
	buf := make([]byte, n)
	got, err := f.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return buf[:got], nil
}
