package replicate

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/record"
)

// addSink gives the lane a sink with its cursor at the oldest batch.
func (l *lane) addSink(name string) {
	l.t.Helper()
	if err := l.term.AddSink(l.t.Context(), name, "somewhere", false); err != nil {
		l.t.Fatal(err)
	}
}

// awaitHeld waits until intake is held for this reason.
func (l *lane) awaitHeld(want string) {
	l.t.Helper()
	l.eventually("intake held by \""+want+"\"", func() bool { got, _ := l.term.Held(); return got == want })
}

// TestIntakeIsHeldAtMaxBytes: undelivered batches hold intake, cuts and dones
// still go, and intake resumes by itself when there is room.
func TestIntakeIsHeldAtMaxBytes(t *testing.T) {
	store := newMemStore()
	cfg := testConfig(t, t.TempDir(), store)
	cfg.MaxBytes = 100_000
	cfg.SnapshotBytes = 10_000
	l := start(t, cfg)
	l.bases("a")
	l.addSink("files")
	next := int64(0)
	var err error
	for range 40 {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		settled := make(chan error, 1)
		err = l.term.Append(ctx, seal(t, "a", next, 1, 5_000), func(err error) { settled <- err })
		cancel()
		if err != nil {
			break
		}
		if err := <-settled; err != nil {
			t.Fatal(err)
		}
		next++
		if next%3 == 0 {
			l.cut()
		}
		l.space.measure()
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a full log gave %v", err)
	}
	l.awaitHeld(HeldMaxBytes)
	if size := store.Bytes(); size < 100_000 || size > 110_000 {
		t.Errorf("held at %d bytes", size)
	}
	last := l.cut()
	for s := uint64(1); s <= last; s++ {
		if _, err := l.offsets(s); err != nil {
			t.Fatalf("undelivered batch %d: %v", s, err)
		}
		l.done("files", s)
	}
	l.awaitHeld("")
	l.mustAppend(seal(t, "a", next, 1, 5_000))
	if l.FirstSeq() == 1 {
		t.Error("nothing was released")
	}
	if _, err := l.offsets(1); !errors.Is(err, record.ErrReleased) {
		t.Errorf("a released batch gave %v", err)
	}
}

// TestSteadyFlowIsNotHeld: with everything delivered, a full log makes room by itself.
func TestSteadyFlowIsNotHeld(t *testing.T) {
	store := newMemStore()
	cfg := testConfig(t, t.TempDir(), store)
	cfg.MaxBytes = 400_000
	cfg.SnapshotBytes = 20_000
	l := start(t, cfg)
	l.bases("a")
	l.addSink("files")
	for i := range int64(300) {
		l.mustAppend(seal(t, "a", i, 1, 10_000))
		l.done("files", l.cut())
		l.space.measure()
	}
	if l.FirstSeq() == 1 {
		t.Error("nothing was released")
	}
	if kept := l.keptBatches(); kept < 10 {
		t.Errorf("only %d batches are kept", kept)
	}
}

func TestIntakeIsHeldBelowMinFree(t *testing.T) {
	var free atomic.Uint64
	free.Store(1 << 20)
	cfg := testConfig(t, t.TempDir(), newMemStore())
	cfg.Free = func() (uint64, error) { return free.Load(), nil }
	cfg.MinFree, cfg.HardFree = 1000, 100
	l := start(t, cfg)
	l.bases("a")
	l.mustAppend(seal(t, "a", 0, 1, 10))
	free.Store(900)
	_, changed := l.term.Held()
	<-changed
	l.awaitHeld(HeldMinFree)
	l.cut() // still goes
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := l.term.Append(ctx, seal(t, "a", 1, 1, 10), func(error) {}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a block was not held: %v", err)
	}
	free.Store(1 << 20)
	l.mustAppend(seal(t, "a", 1, 1, 10))
	free.Store(0)
	l.awaitHeld(HeldMinFree)
	l.stop()
	if reason, _ := l.space.state(); reason != "" {
		t.Errorf("held by %q although this node does not lead", reason)
	}
}

// TestDrainedLogGivesTheDiskBack: with less in the log than a snapshot is
// usually taken after, it shrinks all the same when room is short.
func TestDrainedLogGivesTheDiskBack(t *testing.T) {
	store := newMemStore()
	cfg := testConfig(t, t.TempDir(), store)
	cfg.Free = func() (uint64, error) { return uint64(max(10<<20-store.Bytes(), 0)), nil }
	cfg.MinFree = 5 << 20
	l := start(t, cfg)
	l.bases("a")
	l.addSink("files")
	next := int64(0)
	for reason := ""; reason == ""; reason, _ = l.term.Held() {
		l.mustAppend(seal(t, "a", next, 1, 500_000))
		next++
		l.space.measure()
	}
	l.done("files", l.cut())
	l.mustAppend(seal(t, "a", next, 1, 500_000)) // waits until intake is resumed
}

// TestIntakeIsHeldWhenAReleaseFails: what should make room cannot, so it is not counted on.
func TestIntakeIsHeldWhenAReleaseFails(t *testing.T) {
	store := newMemStore()
	cfg := testConfig(t, t.TempDir(), store)
	cfg.MaxBatches = 5
	l := start(t, cfg)
	l.bases("a")
	l.addSink("files")
	for i := range int64(6) {
		if i == 1 { // the bytes of a parked record are damaged: its batch cannot go
			if err := l.term.Refuse(t.Context(), "files", 1, false, []record.Refusal{refusal(0)}); err != nil {
				t.Fatal(err)
			}
			ref := l.Parked()[0]
			store.mu.Lock()
			store.entries[ref.Indexes[0]-store.first].Data = nil
			store.mu.Unlock()
		}
		l.mustAppend(seal(t, "a", i, 1, 10))
		l.cut()
		if i > 0 {
			l.done("files", uint64(i))
		}
		if i == 4 {
			l.awaitHeld(HeldMaxBatches)
			break
		}
	}
	if got := l.FirstSeq(); got != 1 {
		t.Errorf("batch %d is the first", got)
	}
}

func TestIntakeIsHeldByTooManyBatches(t *testing.T) {
	cfg := testConfig(t, t.TempDir(), newMemStore())
	cfg.MaxBatches = 10
	l := start(t, cfg)
	l.bases("a")
	l.addSink("files")
	for i := range int64(10) {
		l.mustAppend(seal(t, "a", i, 1, 10))
		l.cut()
	}
	l.awaitHeld(HeldMaxBatches)
	l.done("files", 1)
	l.awaitHeld("")
	if got := l.FirstSeq(); got != 2 {
		t.Errorf("first batch is %d", got)
	}
}

// TestRetentionReleasesDeliveredBatches by the leader's clock: HARD-CASES 8.
func TestRetentionReleasesDeliveredBatches(t *testing.T) {
	var ahead atomic.Int64
	cfg := testConfig(t, t.TempDir(), newMemStore())
	cfg.Clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	cfg.Retention = 2 * time.Second
	l := start(t, cfg)
	l.bases("a")
	l.addSink("files")
	for i := range int64(3) {
		l.mustAppend(seal(t, "a", i, 1, 10))
		l.cut()
	}
	l.done("files", 1)
	l.done("files", 2)
	if got := l.FirstSeq(); got != 1 {
		t.Fatalf("batch %d is the first before the retention is over", got)
	}
	ahead.Store(int64(time.Hour))
	l.eventually("two batches released", func() bool { return l.FirstSeq() == 3 })
	if diff := cmp.Diff([]int64{2}, l.mustOffsets(3)); diff != "" {
		t.Error(diff)
	}
}

// TestReleasedLogShrinksToASnapshot: HARD-CASES 10: the log keeps the entry at
// the floor's snapshot, older snapshots go.
func TestReleasedLogShrinksToASnapshot(t *testing.T) {
	store := newMemStore()
	cfg := testConfig(t, t.TempDir(), store)
	cfg.SnapshotEntries = 10
	cfg.MaxBatches = 16
	l := start(t, cfg)
	l.bases("a")
	l.addSink("files")
	for i := range int64(100) {
		l.mustAppend(seal(t, "a", i, 1, 10))
		l.done("files", l.cut())
		if i%20 == 19 {
			l.eventually("a snapshot", func() bool { return l.machine.entries.Load() < cfg.SnapshotEntries })
		}
	}
	l.eventually("the log to shrink to the floor's snapshot", func() bool {
		keep := l.snapshots.indexBelow(l.Floor())
		first, _ := store.FirstIndex()
		l.snapshots.mu.Lock()
		defer l.snapshots.mu.Unlock()
		n := len(l.snapshots.list)
		return keep > 50 && first == keep && l.snapshots.list[n-1].meta.Index == keep
	})
}

// TestFastBlocksDoNotOutrunTheLimit: between two looks at the log no more than
// measureEvery comes in, however fast.
func TestFastBlocksDoNotOutrunTheLimit(t *testing.T) {
	const maxBytes = 8 << 20
	store := newMemStore()
	cfg := testConfig(t, t.TempDir(), store)
	cfg.MaxBytes = maxBytes
	l := start(t, cfg)
	l.bases("a")
	for i := range int64(64) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		err := l.term.Append(ctx, seal(t, "a", i, 1, 900_000), func(err error) {
			if err != nil {
				t.Error(err)
			}
		})
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if size := store.Bytes(); size > maxBytes+measureEvery+defaultInFlightBytes+1<<20 {
		t.Errorf("the log has %d bytes", size)
	}
}
