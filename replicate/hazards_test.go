package replicate

import (
	"context"
	"errors"
	"testing"
	"time"
)

// The hazards of raft by their numbers in wal/DESIGN.md, as far as they are met
// here; the others are there.

// TestRaftHazard1LatencyIsWaitPlusSync: raft syncs on its main loop, so whatever
// came during one sync must share the next.
func TestRaftHazard1LatencyIsWaitPlusSync(t *testing.T) {
	const blocks = 30
	store := newMemStore()
	l := start(t, testConfig(t, t.TempDir(), store))
	l.bases("a")
	release := store.hold()
	defer release()
	before := store.stored
	settled := make(chan error, blocks)
	for i := range int64(blocks) {
		if err := l.term.Append(t.Context(), seal(t, "a", i, 1, 100), func(err error) { settled <- err }); err != nil {
			t.Fatal(err)
		}
	}
	release()
	for range blocks {
		if err := <-settled; err != nil {
			t.Fatal(err)
		}
	}
	store.mu.Lock()
	defer store.mu.Unlock()
	if syncs := store.stored - before; syncs > 3 {
		t.Errorf("%d blocks took %d syncs", blocks, syncs)
	}
}

// TestRaftHazard2GroupsHaveNoLimitInBytes: raft makes one group of up to 64 entries of
// any size; what is handed to it at once is bounded here.
func TestRaftHazard2GroupsHaveNoLimitInBytes(t *testing.T) {
	const size = 200_000
	store := newMemStore()
	l := start(t, testConfig(t, t.TempDir(), store))
	l.bases("a")
	before := store.Bytes()
	release := store.hold()
	defer release()
	settled := make(chan error, maxAppendEntries)
	handed := int64(0)
	for ; handed < maxAppendEntries; handed++ {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := l.term.Append(ctx, seal(t, "a", handed, 1, size), func(err error) { settled <- err })
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	release()
	for range handed {
		if err := <-settled; err != nil {
			t.Fatal(err)
		}
	}
	if got := store.Bytes() - before; handed == 0 || got > defaultInFlightBytes {
		t.Errorf("%d blocks with %d bytes were with raft at once, the limit is %d", handed, got, defaultInFlightBytes)
	}
}

// TestRaftHazard8RestoringCommittedLogs: with it, opening with more entries behind the
// snapshot than raft's channels hold can wait for ever.
func TestRaftHazard8RestoringCommittedLogs(t *testing.T) {
	const entries = 128*maxAppendEntries + 500
	cfg := testConfig(t, t.TempDir(), newMemStore())
	cfg.SnapshotEntries = 4 * entries
	if cfg.raftConfig().RestoreCommittedLogs {
		t.Error("committed logs are restored")
	}
	l := start(t, cfg)
	l.bases("a")
	settled := make(chan error, entries)
	for i := range int64(entries) {
		if err := l.term.Append(t.Context(), seal(t, "a", i, 1, 8), func(err error) { settled <- err }); err != nil {
			t.Fatal(err)
		}
	}
	for range entries {
		if err := <-settled; err != nil {
			t.Fatal(err)
		}
	}
	l.stop()
	l = start(t, cfg)
	if got := l.next("a"); got != entries {
		t.Errorf("the log goes on at %d", got)
	}
}
