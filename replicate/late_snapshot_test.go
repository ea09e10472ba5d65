package replicate

import (
	"errors"
	"io"
	"testing"

	"github.com/hashicorp/raft"
)

// TestOlderSnapshotIsInstalled: entries reach a node, which applies them and takes
// a snapshot, but the leader hears nothing of it; by then it has them no more and sends
// its own, older snapshot. The node must take it, or it is never sent anything else; and it
// must open again afterwards, although its log does not reach its own newest snapshot any more.
func TestOlderSnapshotIsInstalled(t *testing.T) {
	cfg := testConfig(t, t.TempDir(), newMemStore())
	l := start(t, cfg)
	l.bases("a")
	l.mustAppend(seal(t, "a", 0, 1, 10))
	if err := l.snapshot(); err != nil {
		t.Fatal(err)
	}
	older, _ := l.snapshots.newest()
	_, data, err := l.snapshots.Open(older.meta.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	content, err := io.ReadAll(data)
	if err != nil {
		t.Fatal(err)
	}
	l.mustAppend(seal(t, "a", 1, 1, 10))
	if err := l.snapshot(); err != nil {
		t.Fatal(err)
	}
	// One more is under way when the leader's comes.
	late, err := l.machine.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	lateSink, err := l.snapshots.Create(raft.SnapshotVersionMax, l.AppliedIndex(), older.meta.Term, older.meta.Configuration, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	l.stop()

	sink, err := l.snapshots.Create(raft.SnapshotVersionMax, older.meta.Index, older.meta.Term, older.meta.Configuration, older.meta.ConfigurationIndex, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sink.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	_, data, err = l.snapshots.Open(older.meta.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := (installer{l.machine}).Restore(data); err != nil {
		t.Fatal(err)
	}
	if err := late.Persist(lateSink); err != nil {
		t.Fatal(err)
	}
	if err := lateSink.Close(); !errors.Is(err, errOvertaken) {
		t.Errorf("a snapshot of the state before was finished: %v", err)
	}

	l = start(t, cfg)
	if newest, ok := l.snapshots.newest(); !ok || newest.meta.Index != older.meta.Index || newest.takenHere {
		t.Errorf("the newest snapshot is %+v", newest)
	}
	l.mustAppend(seal(t, "a", 1, 1, 10)) // which comes again
}
