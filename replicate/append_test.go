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

// TestLostPredecessorLooksLikeAHole: HARD-CASES 1. A block fails on the way, the
// same node leads again, and the block after it must not be accepted.
func TestLostPredecessorLooksLikeAHole(t *testing.T) {
	store := newMemStore()
	l := start(t, testConfig(t, t.TempDir(), store))
	l.bases("a")
	p0, p1, p2 := seal(t, "a", 0, 100, 10), seal(t, "a", 100, 100, 10), seal(t, "a", 200, 100, 10)
	l.mustAppend(p0)
	store.failNext()
	if err := l.append(p1); !errors.Is(err, record.ErrLeadLost) || !errors.Is(err, errDisk) {
		t.Fatalf("the lost block settled with %v", err)
	}
	if err := l.append(p2); !errors.Is(err, record.ErrLeadLost) {
		t.Fatalf("a block after the end of its term gave %v", err)
	}
	old := l.term
	l.term = l.nextTerm()
	if l.term.Number() <= old.Number() {
		t.Fatalf("term %d after %d", l.term.Number(), old.Number())
	}
	if err := l.append(p2); !errors.Is(err, record.ErrRefused) {
		t.Fatalf("the successor of a lost block settled with %v", err)
	}
	if got := l.next("a"); got != 100 {
		t.Fatalf("next is %d", got)
	}
	l.mustAppend(p1)
	l.mustAppend(p2)
	if diff := cmp.Diff(seq(0, 300), l.mustOffsets(l.cut())); diff != "" {
		t.Error(diff)
	}
}

func TestBlocksSettleInOrder(t *testing.T) {
	store := newMemStore()
	l := start(t, testConfig(t, t.TempDir(), store))
	l.bases("a")
	release := store.hold()
	defer release()
	const n = 40
	settled := make(chan int64, n)
	for i := range int64(n) {
		err := l.term.Append(t.Context(), seal(t, "a", i*10, 10, 5), func(err error) {
			if err != nil {
				t.Errorf("block %d: %v", i, err)
			}
			settled <- i
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	<-store.stall
	release()
	for i := range int64(n) {
		if got := <-settled; got != i {
			t.Fatalf("block %d settled when %d was due", got, i)
		}
	}
	// What waited for the first sync must have shared the next.
	if store.biggest < n/2 {
		t.Errorf("at most %d blocks shared a sync", store.biggest)
	}
}

func TestBytesInFlightAreBounded(t *testing.T) {
	store := newMemStore()
	cfg := testConfig(t, t.TempDir(), store)
	cfg.InFlightBytes = 10_000
	l := start(t, cfg)
	l.bases("a")
	release := store.hold()
	defer release()
	var settled atomic.Int64
	count := func(err error) {
		if err != nil {
			t.Error(err)
		}
		settled.Add(1)
	}
	next := int64(0)
	add := func(ctx context.Context, size int) error {
		err := l.term.Append(ctx, seal(t, "a", next, 1, size), count)
		if err == nil {
			next++
		}
		return err
	}
	for range 2 {
		if err := add(t.Context(), 4000); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := add(ctx, 4000); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a third block was not held: %v", err)
	}
	release()
	if err := add(t.Context(), 4000); err != nil {
		t.Fatal(err)
	}
	// One block that is larger than the bound goes, alone.
	if err := add(t.Context(), 50_000); err != nil {
		t.Fatal(err)
	}
	l.eventually("all settled", func() bool { return settled.Load() == 4 })
}

// TestBigBlocksTravelInParts: HARD-CASES 7.
func TestBigBlocksTravelInParts(t *testing.T) {
	store := newMemStore()
	l := start(t, testConfig(t, t.TempDir(), store))
	l.bases("a", "b")
	l.mustAppend(seal(t, "b", 0, 1, 10))
	big := seal(t, "a", 0, 1, 5<<20)
	if len(big) <= record.MaxEntry {
		t.Fatal("the block is not large")
	}
	l.mustAppend(big)
	l.mustAppend(seal(t, "a", 1, 3, 10))
	store.mu.Lock()
	for _, e := range store.entries {
		if len(e.Data) > record.MaxEntry {
			t.Errorf("entry %d has %d bytes", e.Index, len(e.Data))
		}
	}
	store.mu.Unlock()
	if diff := cmp.Diff([]int64{0, 0, 1, 2, 3}, l.mustOffsets(l.cut())); diff != "" {
		t.Error(diff)
	}
}

// TestBlockFailsWithAnyOfItsParts: the outcome of a block whose early part is lost is its failure.
func TestBlockFailsWithAnyOfItsParts(t *testing.T) {
	store := newMemStore()
	l := start(t, testConfig(t, t.TempDir(), store))
	l.bases("a")
	big := seal(t, "a", 0, 1, 3<<20)
	store.failNext()
	if err := l.append(big); !errors.Is(err, record.ErrLeadLost) {
		t.Fatalf("settled with %v", err)
	}
	l.term = l.nextTerm()
	if got := l.next("a"); got != 0 {
		t.Fatalf("next is %d", got)
	}
	l.mustAppend(big)
	if diff := cmp.Diff([]int64{0}, l.mustOffsets(l.cut())); diff != "" {
		t.Error(diff)
	}
}

func TestLostLeadSettlesAllOnce(t *testing.T) {
	store := newMemStore()
	l := start(t, testConfig(t, t.TempDir(), store))
	l.bases("a")
	release := store.hold()
	defer release()
	const n = 20
	var settled [n]atomic.Int64
	outcomes := make(chan error, 2*n)
	for i := range n {
		err := l.term.Append(t.Context(), seal(t, "a", int64(i), 1, 10), func(err error) {
			settled[i].Add(1)
			outcomes <- err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	<-store.stall
	store.failNext()
	release()
	lost := 0
	for range n {
		if err := <-outcomes; errors.Is(err, record.ErrLeadLost) {
			lost++
		} else if err != nil && !errors.Is(err, record.ErrRefused) {
			t.Errorf("outcome %v", err)
		}
	}
	if lost == 0 {
		t.Error("nothing was lost")
	}
	if err := l.term.Cut(t.Context(), 1, 1); !errors.Is(err, record.ErrLeadLost) {
		t.Errorf("a cut after the term gave %v", err)
	}
	l.nextTerm()
	for i := range settled {
		if n := settled[i].Load(); n != 1 {
			t.Errorf("block %d settled %d times", i, n)
		}
	}
}

func TestAppendEndsWithItsContext(t *testing.T) {
	l := start(t, testConfig(t, t.TempDir(), newMemStore()))
	l.bases("a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := l.term.Append(ctx, seal(t, "a", 0, 1, 10), func(error) { t.Error("settled") })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	if err := l.term.Cut(ctx, 1, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("a cut gave %v", err)
	}
}

// TestProposalsReturnWhenTheDiskHangs: a call ends with its context even while Raft waits for the disk.
func TestProposalsReturnWhenTheDiskHangs(t *testing.T) {
	store := newMemStore()
	l := start(t, testConfig(t, t.TempDir(), store))
	l.bases("a")
	release := store.hold()
	defer release()
	for range 2 * controlSlots {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if err := l.term.Cut(ctx, 1, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a cut gave %v", err)
		}
		cancel()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := l.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("closing gave %v", err)
	}
	release()
	if err := l.Close(t.Context()); err != nil {
		t.Errorf("closing at last gave %v", err)
	}
}
