package replicate

import (
	"errors"
	"io/fs"
	"os"
	"slices"
)

const (
	// keepBetween is how many snapshots stay between the floor's and the newest,
	// however large they are; up to keepMost stay while all take no more than
	// keepBytes: the log shrinks from one to the next, and small ones cost nothing.
	keepBetween = 16
	keepMost    = 256
	keepBytes   = 16 << 20
)

// thin deletes the snapshots below the floor's, and of those between it and
// the newest all but so many as keep allows, as evenly spread as they can be.
func (s *snapshotStore) thin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	indexes := make([]uint64, len(s.list))
	var size int64
	for i, info := range s.list {
		indexes[i] = info.meta.Index
		size += info.meta.Size
	}
	var errs []error
	for _, i := range superfluous(indexes, s.floor, kept(len(indexes), size)) {
		err := os.Remove(s.list[i].path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
			continue
		}
		s.list[i] = nil
	}
	s.list = slices.DeleteFunc(s.list, func(info *snapshotInfo) bool { return info == nil })
	return errors.Join(errs...)
}

// kept tells how many of n snapshots, of so many bytes in all, may lie between the
// floor's and the newest.
func kept(n int, size int64) int {
	fit := int64(n) * keepBytes / max(size, 1)
	return int(min(max(fit, keepBetween), keepMost))
}

// superfluous decides which of the snapshots at these indexes, newest first,
// can go: those older than the newest one below the floor; and, while more than
// keep lie between that one and the newest, the one whose neighbours are closest.
func superfluous(indexes []uint64, floor uint64, keep int) []int {
	var live, gone []int
	for i, index := range indexes {
		live = append(live, i)
		if index < floor {
			for j := i + 1; j < len(indexes); j++ {
				gone = append(gone, j)
			}
			break
		}
	}
	for len(live)-2 > keep {
		best := 1
		for k := 1; k < len(live)-1; k++ {
			if indexes[live[k-1]]-indexes[live[k+1]] < indexes[live[best-1]]-indexes[live[best+1]] {
				best = k
			}
		}
		gone = append(gone, live[best])
		live = slices.Delete(live, best, best+1)
	}
	slices.Sort(gone)
	return gone
}
