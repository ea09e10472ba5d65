package wal

import (
	"path/filepath"
	"testing"
)

// TestNoSegmentBeforeItsPredecessorIsDurable stores groups that fill several segments: in front of each sync of the
// directory there is at most one name that was not there at the one before. A power cut could
// else leave a later segment without an earlier one, which looks like damage.
// (Found by internal/torture, which keeps such names in any order.)
func TestNoSegmentBeforeItsPredecessorIsDurable(t *testing.T) {
	cfg := testConfig(t.TempDir())
	durable, syncs := map[string]bool{}, 0
	cfg.Files = &hookedFiles{Files: osFiles{}, before: func(op, name string) error {
		if op != "syncdir" || filepath.Base(name) != segmentsDir {
			return nil
		}
		syncs++
		var fresh []string
		for _, name := range segmentFiles(t, cfg.Dir) {
			if !durable[name] {
				fresh = append(fresh, filepath.Base(name))
			}
			durable[name] = true
		}
		if len(fresh) > 1 {
			t.Errorf("segments %v wait for the same sync", fresh)
		}
		return nil
	}}
	l := mustOpen(t, cfg)
	mustStore(t, l, testEntries(1, 5, 1, 300)...)
	mustStore(t, l, testEntries(6, 80, 1, 300)...)
	mustClose(t, l)
	// A segment that is over its size is ended before anything else is written.
	cfg.SegmentSize = minSegmentSize
	l = mustOpen(t, cfg)
	mustStore(t, l, testEntries(81, 120, 1, 300)...)
	if n := len(segmentFiles(t, cfg.Dir)); n < 6 || syncs < n {
		t.Errorf("%d segments, %d syncs of the directory", n, syncs)
	}
	wantEntries(t, l, 1, 120, 1, 300)
}
