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

// reserve keeps the file "reserve" in the data directory. When the disk has less
// than that to give, the file is removed, and made again at a later start or
// check when there is room.
type reserve struct{ path string }

func newReserve(dataDir string) *reserve { return &reserve{filepath.Join(dataDir, "reserve")} }

// take makes the file if there is room for twice its size, so that making it
// does not bring about what it is there for.
func (r *reserve) take() error {
	if info, err := os.Stat(r.path); err == nil && info.Size() == reserveBytes {
		return nil
	}
	free, err := freeBytes(filepath.Dir(r.path))
	if err != nil || free < 2*reserveBytes {
		return err
	}
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return err
	}
	err = syscall.Fallocate(int(f.Fd()), 0, 0, reserveBytes)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		err = fill(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("reserving disk space: %w", err), os.Remove(r.path))
	}
	return nil
}

// give removes the file when the disk has less than its size left.
func (r *reserve) give() (given bool, err error) {
	free, err := freeBytes(filepath.Dir(r.path))
	if err != nil || free >= reserveBytes {
		return false, err
	}
	err = os.Remove(r.path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

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
