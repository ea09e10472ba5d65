package replicate

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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
	var newest Newest
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), snapshotSuffix) {
			continue
		}
		info, err := readSnapshot(filepath.Join(dir, e.Name()))
		var bad *SnapshotError
		switch {
		case errors.As(err, &bad) && !bad.Newer:
			continue
		case err != nil:
			return Newest{}, err
		}
		if m := info.meta; m.Index > newest.Index || m.Index == newest.Index && m.Term > newest.Term {
			newest = Newest{Index: m.Index, Term: m.Term, TakenHere: info.takenHere}
		}
	}
	return newest, nil
}
