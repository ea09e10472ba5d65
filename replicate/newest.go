package replicate

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Newest says which snapshot a lane's log may begin after.
type Newest struct {
	// Index and Term are 0 when there is no snapshot.
	Index, Term uint64
	// TakenHere tells that this node's own log held everything up to Index; otherwise
	// a leader installed the snapshot, and the log may end below it.
	TakenHere bool
}

// NewestSnapshot finds the newest whole snapshot of a lane's directory, which
// whoever opens the log needs to know first. It changes nothing; what is damaged
// is left for Open to judge.
func NewestSnapshot(dir string) (Newest, error) {
	dir = filepath.Join(dir, snapshotDir)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Newest{}, err
	}
	for _, name := range newestFirst(entries) {
		info, err := readSnapshot(filepath.Join(dir, name))
		var bad *SnapshotError
		switch {
		case errors.As(err, &bad) && !bad.Newer:
			continue
		case err != nil:
			return Newest{}, err
		}
		return Newest{Index: info.meta.Index, Term: info.meta.Term, TakenHere: info.takenHere}, nil
	}
	return Newest{}, nil
}
