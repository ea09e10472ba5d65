package replicate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	stableName    = "stable.db"
	stableFormat  = "1"
	stableTimeout = time.Second
)

var (
	raftBucket  = []byte("raft")
	ownerBucket = []byte("owner")
)

// ErrForeign says that a directory belongs to another node, gateway or lane, or
// to a newer version of the program. Nothing was touched.
var ErrForeign = errors.New("the directory is not this lane's")

// ErrInUse says that another process has the directory open.
var ErrInUse = errors.New("the directory is in use by another process")

// StableError says that the file of Raft's term and vote is damaged, lost or older than
// the log beside it. Without them this node could vote twice in one term.
type StableError struct {
	Path string
	What string
	Err  error // what the system or the library said, if it did
}

// Error implements error.
func (e *StableError) Error() string {
	return fmt.Sprintf("%s, which holds Raft's term and vote, cannot be used: %s; nothing was changed: "+
		"`forebay wal verify` tells what else is damaged; then restore this directory from a copy, or rebuild the node from its peers", e.Path, e.What)
}

// Unwrap gives what the system or the library said.
func (e *StableError) Unwrap() error { return e.Err }

// stableStore keeps Raft's term and vote, and whose directory it is. Each write
// is synced before it returns. It implements raft.StableStore.
type stableStore struct {
	db *bbolt.DB
}

// owner is what a directory remembers of its lane; compared at every open.
type owner struct {
	node, gateway string
	lane          uint32
}

func openStable(dir string, own owner) (*stableStore, error) {
	path := filepath.Join(dir, stableName)
	_, err := os.Stat(path)
	switch {
	case err == nil:
		if _, err := checkStable(path, stableTimeout); err != nil {
			return nil, fmt.Errorf("opening %s: %w", path, err)
		}
		return openStableFile(path, own)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	// A crash while bbolt lays out a new file would leave one that it cannot open.
	tmp := path + tempSuffix
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("creating %s: %w", path, err)
	}
	s, err := openStableFile(tmp, own)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.Close(), os.Rename(tmp, path), syncDir(dir)); err != nil {
		return nil, fmt.Errorf("creating %s: %w", path, err)
	}
	return openStableFile(path, own)
}

func openStableFile(path string, own owner) (*stableStore, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: stableTimeout, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("opening %s: %w", path, ErrInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	s := &stableStore{db: db}
	if err := s.claim(own); err != nil {
		return nil, errors.Join(fmt.Errorf("opening %s: %w", path, err), db.Close())
	}
	return s, nil
}

// claim writes the owner into a new store, and compares it with an old one's.
func (s *stableStore) claim(own owner) error {
	want := []struct{ key, value string }{
		{"format", stableFormat}, {"gateway", own.gateway}, {"node", own.node}, {"lane", strconv.FormatUint(uint64(own.lane), 10)},
	}
	fresh := false
	err := s.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(ownerBucket)
		if b == nil {
			fresh = true
			return nil
		}
		for _, w := range want {
			if got := string(b.Get([]byte(w.key))); got != w.value {
				return fmt.Errorf("%w: its %s is %q, not %q", ErrForeign, w.key, got, w.value)
			}
		}
		return nil
	})
	if err != nil || !fresh {
		return err
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(ownerBucket)
		if err != nil {
			return err
		}
		for _, w := range want {
			if err := b.Put([]byte(w.key), []byte(w.value)); err != nil {
				return err
			}
		}
		_, err = tx.CreateBucketIfNotExists(raftBucket)
		return err
	})
}

// Set implements raft.StableStore. Behind the value stands a checksum of key and value: the
// library has one for its meta pages only.
func (s *stableStore) Set(key, val []byte) error {
	kept := binary.LittleEndian.AppendUint32(append([]byte{}, val...), stableSum(key, val))
	err := s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(raftBucket).Put(key, kept) })
	if err != nil {
		return fmt.Errorf("writing %s: %w", s.db.Path(), err) // bbolt does not say which file
	}
	return nil
}

func stableSum(key, val []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, val)
}

// checked is what was kept under key without its checksum; nil when there is no such key.
func checked(key, kept []byte) ([]byte, error) {
	if kept == nil {
		return nil, nil
	}
	end := len(kept) - 4
	if end < 0 || binary.LittleEndian.Uint32(kept[end:]) != stableSum(key, kept[:end]) {
		return nil, fmt.Errorf("the checksum of %s is wrong", key)
	}
	return append([]byte{}, kept[:end]...), nil
}

// Get implements raft.StableStore: nil when there is no such key.
func (s *stableStore) Get(key []byte) (val []byte, err error) {
	err = s.db.View(func(tx *bbolt.Tx) (err error) {
		if val, err = checked(key, tx.Bucket(raftBucket).Get(key)); err != nil {
			err = &StableError{s.db.Path(), err.Error(), nil}
		}
		return err
	})
	return val, err
}

// SetUint64 implements raft.StableStore.
func (s *stableStore) SetUint64(key []byte, val uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, val))
}

// GetUint64 implements raft.StableStore: 0 when there is no such key.
func (s *stableStore) GetUint64(key []byte) (uint64, error) {
	val, err := s.Get(key)
	if err != nil || val == nil {
		return 0, err
	}
	if len(val) != 8 {
		return 0, fmt.Errorf("%s: key %q has %d bytes instead of 8", stableName, key, len(val))
	}
	return binary.BigEndian.Uint64(val), nil
}

// Close releases the file.
func (s *stableStore) Close() error { return s.db.Close() }
