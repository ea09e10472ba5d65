package replicate

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"forebay/replicate/state"
)

// What follows reads a lane's directory without running the lane: it changes nothing,
// and may be used while a node runs on it.

// SnapshotFile is a snapshot as it lies on disk.
type SnapshotFile struct {
	// Name is its path inside the lane's directory.
	Name        string
	Index, Term uint64
	Bytes       int64
	TakenHere   bool
	// Voters is how many nodes vote, of which this is one's directory.
	Voters int
	// Err says what is wrong with it: nothing else is known then.
	Err error
}

// SnapshotFiles lists the snapshots of a lane's directory, newest first, damaged ones at the end. Each is read whole.
func SnapshotFiles(dir string) ([]SnapshotFile, error) {
	entries, err := os.ReadDir(filepath.Join(dir, snapshotDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing snapshots: %w", err)
	}
	var list []SnapshotFile
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), snapshotSuffix) {
			continue
		}
		f := SnapshotFile{Name: filepath.Join(snapshotDir, e.Name())}
		info, err := readSnapshot(filepath.Join(dir, f.Name))
		var bad *SnapshotError
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // a running node removed it
		case errors.As(err, &bad):
			f.Err = bad
		case err != nil:
			f.Err = &SnapshotError{Path: f.Name, What: err.Error()}
		default:
			f.Index, f.Term, f.Bytes, f.TakenHere = info.meta.Index, info.meta.Term, info.meta.Size, info.takenHere
			for _, s := range info.meta.Configuration.Servers {
				if s.Suffrage == raft.Voter {
					f.Voters++
				}
			}
		}
		list = append(list, f)
	}
	slices.SortStableFunc(list, func(a, b SnapshotFile) int { return compareDesc(a.Index, b.Index) })
	return list, nil
}

// Entries gives the log's entries from an index on, in order; the walk ends with its first error.
type Entries func(from uint64) iter.Seq2[*raft.Log, error]

// ErrNoBase says that the state cannot be rebuilt: there is no whole snapshot to begin with, and the log does not
// go back to its first entry.
var ErrNoBase = errors.New("no whole snapshot, and the log does not begin at entry 1")

// Rebuild gives a lane's state as it was after entry last: from the newest whole snapshot up to there, and
// the entries behind it. first is the log's first entry. If an entry cannot be read the state before it is returned
// too, with the error.
func Rebuild(dir string, first, last uint64, entries Entries) (*state.State, error) {
	files, err := SnapshotFiles(dir)
	if err != nil {
		return nil, err
	}
	st, base := state.New(), uint64(0)
	for _, f := range files {
		if f.Err != nil || f.Index > last || f.Index+1 < first {
			continue
		}
		if st, err = readState(filepath.Join(dir, f.Name)); err != nil {
			return nil, err
		}
		base = f.Index
		break
	}
	if base == 0 && first > 1 {
		return nil, ErrNoBase
	}
	if base >= last {
		return st, nil
	}
	for e, err := range entries(base + 1) {
		if err != nil {
			return st, err
		}
		if e.Index > last {
			break
		}
		if e.Type == raft.LogCommand {
			out := st.Apply(e.Index, e.Data)
			var fatal *state.FatalError
			if errors.As(out.Err, &fatal) {
				return st, out.Err
			}
		}
		if e.Index == last { // what lies behind may be bad
			break
		}
	}
	return st, nil
}

// readState reads the state out of a snapshot file.
func readState(path string) (*state.State, error) {
	info, err := readSnapshot(path)
	if err != nil {
		return nil, err
	}
	s := &snapshotStore{dir: filepath.Dir(path)}
	_, data, err := s.Open(info.meta.ID)
	if err != nil {
		return nil, err
	}
	defer data.Close()
	st, _, _, err := decodePayload(data)
	return st, err
}

// CheckStable reads the file of Raft's term and vote, and all that is in it. ErrInUse
// means that a node runs on the directory: only it can read the file. fs.ErrNotExist if there is none.
func CheckStable(dir string) (term uint64, err error) {
	return checkStable(filepath.Join(dir, stableName), 10*time.Millisecond)
}

// checkStable is CheckStable of a file, which waits so long for one that is held.
func checkStable(path string, wait time.Duration) (term uint64, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	if info.Size() == 0 {
		return 0, &StableError{path, "it is empty", nil} // the library would take it for a new one
	}
	// The library panics at some pages that are damaged, and maps the file: bytes that are
	// not there are a fault.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	var file *os.File
	defer func() {
		if r := recover(); r != nil {
			// The library keeps the file open and mapped then: only the lock can be given back.
			_ = syscall.Flock(int(file.Fd()), syscall.LOCK_UN)
			file.Close()
			err = &StableError{path, fmt.Sprint(r), nil}
		}
	}()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		ReadOnly: true, PreLoadFreelist: true, Timeout: wait,
		OpenFile: func(name string, flag int, perm os.FileMode) (_ *os.File, err error) {
			file, err = os.OpenFile(name, flag, perm)
			return file, err
		},
	})
	if errors.Is(err, berrors.ErrTimeout) {
		return 0, ErrInUse
	}
	if err != nil {
		return 0, &StableError{path, err.Error(), err}
	}
	defer func() { _ = db.Close() }()
	err = db.View(func(tx *bbolt.Tx) error {
		if tx.Size() > info.Size() {
			return fmt.Errorf("it has %d bytes instead of %d", info.Size(), tx.Size())
		}
		for _, name := range [][]byte{raftBucket, ownerBucket} {
			b := tx.Bucket(name)
			if b == nil {
				return fmt.Errorf("it has no part %q", name)
			}
			if err := b.ForEach(func(_, _ []byte) error { return nil }); err != nil {
				return err
			}
		}
		return tx.Bucket(raftBucket).ForEach(func(key, kept []byte) error {
			_, err := checked(key, kept)
			return err
		})
	})
	if err != nil {
		return 0, &StableError{path, err.Error(), err}
	}
	term, err = (&stableStore{db: db}).GetUint64(currentTermKey)
	if err != nil {
		return 0, &StableError{path, err.Error(), err}
	}
	return term, nil
}
