package file

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// fsys is what the sink asks of a file system: the seam for tests that fail, hang
// and cut the power between any two steps. Every method may hang in the kernel, and
// is called through sinks.Stubborn.
type fsys interface {
	// MakeDir makes a directory and its parents, durably.
	MakeDir(dir string) error
	// List calls fn with the name of every entry, in no order.
	List(dir string, fn func(name string)) error
	// ReadFile reads a small file whole.
	ReadFile(path string) ([]byte, error)
	// Create makes a file that must not be there yet.
	Create(path string) (file, error)
	// Publish gives a file its final name, in one step, unless that is taken (fs.ErrExist).
	Publish(tmp, final string) error
	// Replace gives a file its final name, in one step, over what had it.
	Replace(tmp, final string) error
	Remove(path string) error
	// SyncDir makes the entries of a directory durable.
	SyncDir(dir string) error
	// OpenLane opens the lock of a lane, and makes it when it is missing.
	OpenLane(path string) (laneFile, error)
}

// file is a temporary file that is being written.
type file interface {
	io.WriteCloser
	Sync() error
}

// laneFile is the lock of a lane, with the few bytes that it keeps.
type laneFile interface {
	// TryLock takes the lock unless another open file has it.
	TryLock() (bool, error)
	Unlock() error
	Read() ([]byte, error)
	// Write replaces the content, durably.
	Write(b []byte) error
	Close() error
}

// osFS is the operating system's.
type osFS struct{}

func (f osFS) MakeDir(dir string) error {
	err := os.Mkdir(dir, 0o777)
	if errors.Is(err, fs.ErrNotExist) {
		if err := f.MakeDir(filepath.Dir(dir)); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o777)
	}
	if errors.Is(err, fs.ErrExist) {
		info, statErr := os.Stat(dir)
		if statErr != nil {
			return statErr
		}
		if !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
		return nil
	}
	if err != nil {
		return err
	}
	return f.SyncDir(filepath.Dir(dir))
}

// listChunk bounds the names of a directory held in memory at once.
const listChunk = 1024

func (osFS) List(dir string, fn func(name string)) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		names, err := d.Readdirnames(listChunk)
		for _, name := range names {
			fn(name)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (osFS) ReadFile(path string) ([]byte, error) { return os.ReadFile(path) }

func (osFS) Create(path string) (file, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o666)
}

func (osFS) Publish(tmp, final string) error { return publish(tmp, final) }

// publishByLink is for file systems without an exclusive rename. A crash between its
// two steps leaves the temporary name behind, for Open to remove.
func publishByLink(tmp, final string) error {
	if err := os.Link(tmp, final); err != nil {
		// A link over NFS may have been made although the answer to it was lost.
		if !errors.Is(err, fs.ErrExist) || !sameFile(tmp, final) {
			return err
		}
	}
	return os.Remove(tmp)
}

func sameFile(a, b string) bool {
	ia, errA := os.Lstat(a)
	ib, errB := os.Lstat(b)
	return errA == nil && errB == nil && os.SameFile(ia, ib)
}

func (osFS) Replace(tmp, final string) error { return os.Rename(tmp, final) }

func (osFS) Remove(path string) error { return os.Remove(path) }

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}

func (osFS) OpenLane(path string) (laneFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o666)
	if err != nil {
		return nil, err
	}
	return &osLane{f: f}, nil
}

type osLane struct{ f *os.File }

func (l *osLane) TryLock() (bool, error) {
	err := l.flock(unix.LOCK_EX | unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

func (l *osLane) Unlock() error { return l.flock(unix.LOCK_UN) }

func (l *osLane) flock(how int) error {
	for {
		err := unix.Flock(int(l.f.Fd()), how)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return &fs.PathError{Op: "flock", Path: l.f.Name(), Err: err}
		}
	}
}

// maxLane bounds what is read of a lane's lock.
const maxLane = 64

func (l *osLane) Read() ([]byte, error) {
	b := make([]byte, maxLane)
	n, err := l.f.ReadAt(b, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:n], err
}

func (l *osLane) Write(b []byte) error {
	if _, err := l.f.WriteAt(b, 0); err != nil {
		return err
	}
	return l.f.Sync()
}

func (l *osLane) Close() error { return l.f.Close() }
