package wal

import (
	"encoding/binary"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/tidwall/wal"
)

// The hazards of raft 1.8.0 that its log has to answer, by their numbers in
// DESIGN.md; 1, 2 and 8 are in package replicate. Hazard 3 (a follower whose store
// fails again and again) cannot come up: see TestFailStop, there is no second time.

// TestRaftHazard4AWriteThatLandsLate: after a store that was given up, raft asks for the same
// index again. A bare log in which the write has landed answers "out of order" for ever.
func TestRaftHazard4AWriteThatLandsLate(t *testing.T) {
	w, _ := bareLog(t, 2)
	if err := w.Write(2, nil); !errors.Is(err, wal.ErrOutOfOrder) {
		t.Fatalf("the bare library takes an index again: %v", err)
	}
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		cfg := testConfig(t.TempDir())
		cfg.StallTimeout = time.Second
		armed := false
		cfg.Files = &hookedFiles{Files: osFiles{}, before: func(op, _ string) error {
			if armed && op == "sync" {
				<-hang
			}
			return nil
		}}
		l, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		mustStore(t, l, testEntry(1, 1, 10))
		armed = true
		time.AfterFunc(time.Hour, func() { close(hang) })
		for range 2 {
			if err := l.StoreLog(testEntry(2, 1, 10)); !errors.Is(err, ErrStalled) {
				t.Errorf("the write that landed late returned %v", err)
			}
		}
		_ = l.Close() // closing a failed log may fail
		armed = false
		l, err = Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if last, _ := l.LastIndex(); last != 2 {
			t.Errorf("the log ends with %d; what landed is legal and stays", last)
		}
		mustClose(t, l)
	})
}

// badLog cannot read one entry.
type badLog struct {
	*raft.InmemStore
	index uint64
}

func (b *badLog) GetLog(index uint64, e *raft.Log) error {
	if index == b.index {
		return errDead
	}
	return b.InmemStore.GetLog(index, e)
}

// TestRaftHazard5AnEntryThatCannotBeRead panics raft at its start. Ours does not get so far.
func TestRaftHazard5AnEntryThatCannotBeRead(t *testing.T) {
	logs := &badLog{raft.NewInmemStore(), 2}
	if err := logs.StoreLogs(testEntries(1, 3, 1, 10)); err != nil {
		t.Fatal(err)
	}
	if !panics(func() {
		c := raft.DefaultConfig()
		c.LocalID, c.Logger = "n1", hclog.NewNullLogger()
		_, transport := raft.NewInmemTransport("")
		_, _ = raft.NewRaft(c, &countFSM{}, logs, raft.NewInmemStore(), raft.NewInmemSnapshotStore(), transport)
	}) {
		t.Fatal("raft starts around an entry that cannot be read")
	}
	cfg := damagedLog(t)
	cfg.SnapshotIndex, cfg.SnapshotTerm = 90, 1
	refused := 0
	for _, segment := range segmentFiles(t, cfg.Dir) {
		first, ok := parseSegment(segment[len(segment)-20:])
		if !ok || first <= 96 {
			continue // with nothing above the snapshot, or the one that holds it
		}
		b := readFile(t, segment)
		if len(b) == 0 {
			continue // the newest, made when the one before it was full
		}
		b[len(b)/2] ^= 1
		putFile(t, segment, b)
		wantRefused(t, cfg)
		refused++
		b[len(b)/2] ^= 1
		putFile(t, segment, b)
	}
	mustOpen(t, cfg)
	if refused < 2 {
		t.Errorf("%d segments lie above the snapshot", refused)
	}
}

// TestRaftHazard6CompactionByCount: raft deletes everything below a snapshot, delivered
// or not. Ours keeps what lies above the floor.
func TestRaftHazard6CompactionByCount(t *testing.T) {
	const n, delivered = 100, 40
	run := func(logs raft.LogStore, applied func(*raft.Raft)) (first uint64) {
		r := startRaft(t, logs, raft.NewInmemStore(), raft.NewInmemSnapshotStore(), &countFSM{}, true)
		for i := range uint64(n) {
			if err := r.Apply(binary.LittleEndian.AppendUint64(nil, i), testWait).Error(); err != nil {
				t.Fatal(err)
			}
		}
		applied(r)
		if err := r.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		first, _ = logs.FirstIndex()
		if err := r.Shutdown().Error(); err != nil {
			t.Fatal(err)
		}
		return first
	}
	if first := run(raft.NewInmemStore(), func(*raft.Raft) {}); first > 0 && first <= delivered {
		t.Fatalf("raft keeps entries from %d on", first)
	}
	l := mustOpen(t, testConfig(t.TempDir()))
	if first := run(l, func(r *raft.Raft) {
		l.SetApplied(r.AppliedIndex())
		l.SetFloor(delivered)
	}); first != delivered {
		t.Errorf("the log begins with %d, the floor is %d", first, delivered)
	}
}
