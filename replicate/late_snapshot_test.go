package replicate

import (
	"testing"
)

// TestSnapshotThatComesLateIsRefused: a leader sends a snapshot, hears nothing in time,
// and goes on over another connection; the node catches up, takes a snapshot of
// its own, and only then the first one arrives. Installing it would drop entries that
// the node has acknowledged, and the next start would miss them.
func TestSnapshotThatComesLateIsRefused(t *testing.T) {
	dir := t.TempDir()
	store := newMemStore()
	l := start(t, testConfig(t, dir, store))
	l.bases("a")
	l.mustAppend(seal(t, "a", 0, 1, 10))
	if err := l.snapshot(); err != nil {
		t.Fatal(err)
	}
	late, _ := l.snapshots.newest()
	l.mustAppend(seal(t, "a", 1, 1, 10))
	if err := l.snapshot(); err != nil {
		t.Fatal(err)
	}
	before := marshal(l)
	_, last, err := bounds(store)
	if err != nil {
		t.Fatal(err)
	}
	_, data, err := l.snapshots.Open(late.meta.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	if err := (installer{l.machine}).Restore(data); err == nil {
		t.Error("it was installed")
	}
	if _, now, err := bounds(store); err != nil || now != last {
		t.Errorf("the log ends at %d, was %d: %v", now, last, err)
	}
	if string(marshal(l)) != string(before) {
		t.Error("the state went back")
	}
	l.mustAppend(seal(t, "a", 2, 1, 10))
}
