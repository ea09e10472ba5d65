package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// reserveBytes is disk space kept aside for the day when there is none left:
// enough for the stable store, a snapshot, and the dones and releases that give
// space back. Without it a full disk would be a loop of failing starts.
const reserveBytes = 16 << 20

// reserve keeps the file "reserve" in the data directory. A start that finds
// less than that on the disk removes the file; a later one with room makes it again.
type reserve struct {
	path string
	free func(path string) (int64, error)
}

func newReserve(dataDir string, free func(string) (int64, error)) *reserve {
	return &reserve{filepath.Join(dataDir, "reserve"), free}
}

// take makes the file if there is room for twice its size, so that making it
// does not bring about what it is there for. It tells whether the file is there.
func (r *reserve) take() (bool, error) {
	if info, err := os.Stat(r.path); err == nil && info.Size() == reserveBytes {
		return true, nil
	}
	free, err := r.free(filepath.Dir(r.path))
	if err != nil || free < 2*reserveBytes {
		return false, err
	}
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return false, err
	}
	err = syscall.Fallocate(int(f.Fd()), 0, 0, reserveBytes)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		err = fill(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return false, errors.Join(fmt.Errorf("reserving disk space: %w", err), os.Remove(r.path))
	}
	return true, nil
}

// give removes the file when the disk has less than its size left.
func (r *reserve) give() (given bool, err error) {
	free, err := r.free(filepath.Dir(r.path))
	if err != nil || free >= reserveBytes {
		return false, err
	}
	err = os.Remove(r.path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// fill writes the file where the file system cannot allocate it unwritten.
func fill(f *os.File) error {
	zeros := make([]byte, 1<<20)
	for range reserveBytes / len(zeros) {
		if _, err := f.Write(zeros); err != nil {
			return err
		}
	}
	return nil
}

// freeBytes is what an ordinary user may still write on the disk of a path.
func freeBytes(path string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return 0, fmt.Errorf("asking for the free space of %s: %w", path, err)
	}
	return int64(s.Bavail) * s.Bsize, nil
}
