package wal

import (
	"errors"
	"testing"
)

// TestNoHoleAfterAnInstalledSnapshot: raft installs snapshot 80 over a log whose
// end, up to 120, the cluster never committed; it goes on believing in that end and, when
// entry 121 comes, stores it behind entries that are gone. The log must not take it: the next
// start would find a log that does not reach back to its snapshot.
func TestNoHoleAfterAnInstalledSnapshot(t *testing.T) {
	cfg := damagedLog(t)
	l := mustOpen(t, cfg)
	l.SetApplied(60)
	l.Installed(80, 9)
	if err := l.DeleteRange(1, 120); err != nil {
		t.Fatal(err)
	}
	if err := l.StoreLogs(testEntries(121, 125, 9, 200)); !errors.Is(err, ErrOutOfOrder) {
		t.Errorf("entries behind a hole: %v", err)
	}
	if err := l.Err(); err != nil {
		t.Errorf("the log has failed: %v", err)
	}
	mustClose(t, l)
	cfg.SnapshotIndex, cfg.SnapshotTerm = 80, 9
	l = mustOpen(t, cfg)
	fill(t, l, 81, 125, 9, 200)
	wantEntries(t, l, 81, 125, 9, 200)
}

// TestTwoSnapshotsInstalledInARow: nothing came in between, so that the log that
// the second one replaces is empty.
func TestTwoSnapshotsInstalledInARow(t *testing.T) {
	cfg := damagedLog(t)
	l := mustOpen(t, cfg)
	l.Installed(200, 9)
	if err := l.DeleteRange(1, 120); err != nil {
		t.Fatal(err)
	}
	l.Installed(300, 9)
	fill(t, l, 301, 350, 9, 200)
	wantEntries(t, l, 301, 350, 9, 200)
	mustClose(t, l)
	cfg.SnapshotIndex, cfg.SnapshotTerm = 300, 9
	wantEntries(t, mustOpen(t, cfg), 301, 350, 9, 200)
}
