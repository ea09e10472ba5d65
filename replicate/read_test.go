package replicate

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/record"
)

// TestRefusedBlocksStayOutOfTheBatch: HARD-CASES 2.
func TestRefusedBlocksStayOutOfTheBatch(t *testing.T) {
	l := start(t, testConfig(t, t.TempDir(), newMemStore()))
	l.bases("a", "b")
	refused := func(block []byte) {
		t.Helper()
		if err := l.append(block); !errors.Is(err, record.ErrRefused) {
			t.Fatalf("settled with %v", err)
		}
	}
	refused(seal(t, "a", 7, 1, 10))
	l.mustAppend(seal(t, "a", 0, 2, 10))
	refused(seal(t, "a", 0, 2, 10))
	refused(seal(t, "b", 5, 1, 2<<20)) // in parts
	l.mustAppend(seal(t, "b", 0, 1, 2<<20))
	refused(seal(t, "a", 9, 1, 10))
	l.mustAppend(seal(t, "a", 2, 2, 10))
	refused(seal(t, "a", 9, 1, 10))
	if err := l.term.Cut(t.Context(), 7, 1); !errors.Is(err, record.ErrRefused) {
		t.Errorf("a cut of another number gave %v", err)
	}
	if diff := cmp.Diff([]int64{0, 1, 0, 2, 3}, l.mustOffsets(l.cut())); diff != "" {
		t.Error(diff)
	}
	if err := l.term.Cut(t.Context(), 2, 1); !errors.Is(err, record.ErrNothingToCut) {
		t.Errorf("an empty cut gave %v", err)
	}
}

// TestEarlyPartsAreRead: a large block that is under way when a cut comes
// belongs to the batch of its last part.
func TestEarlyPartsAreRead(t *testing.T) {
	store := newMemStore()
	l := start(t, testConfig(t, t.TempDir(), store))
	l.bases("a", "b")
	l.mustAppend(seal(t, "b", 0, 1, 10))
	parts := record.Split(seal(t, "a", 0, 1, 3<<20))
	for i, part := range parts {
		if err := l.term.doEncoded(t.Context(), part); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			l.cut()
			l.mustAppend(seal(t, "b", 1, 1, 10))
		}
	}
	second := l.cut()
	layout, _ := l.Layout(second)
	if len(layout.Early) != 1 {
		t.Fatalf("layout %+v", layout)
	}
	if diff := cmp.Diff([]int64{0}, l.mustOffsets(1)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]int64{1, 0}, l.mustOffsets(second)); diff != "" {
		t.Error(diff)
	}
}

func TestReadWantedTopics(t *testing.T) {
	l := start(t, testConfig(t, t.TempDir(), newMemStore()))
	l.bases("a", "b")
	l.mustAppend(seal(t, "a", 0, 3, 10))
	l.mustAppend(seal(t, "b", 0, 3, 10))
	n := l.cut()
	var got []string
	err := l.term.Read(t.Context(), n, func(topic string) bool { return topic == "b" }, func(rec *record.Record) error {
		got = append(got, rec.Topic)
		return nil
	})
	if diff := cmp.Diff([]string{"b", "b", "b"}, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	stop := errors.New("stop")
	if err := l.term.Read(t.Context(), n, nil, func(*record.Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("error is %v", err)
	}
}

func TestReadEnds(t *testing.T) {
	store := newMemStore()
	l := start(t, testConfig(t, t.TempDir(), store))
	l.bases("a")
	for i := range int64(5) {
		l.mustAppend(seal(t, "a", i, 1, 10))
	}
	n := l.cut()
	for name, tt := range map[string]struct {
		fn   func(context.CancelFunc)
		seq  uint64
		want error
	}{
		"context": {seq: n, fn: func(cancel context.CancelFunc) { cancel() }, want: context.Canceled},
		"not cut": {seq: n + 1, fn: func(context.CancelFunc) {}, want: nil},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			err := l.term.Read(ctx, tt.seq, nil, func(*record.Record) error { tt.fn(cancel); return nil })
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("error is %v", err)
			}
		})
	}
	t.Run("lead", func(t *testing.T) {
		err := l.term.Read(t.Context(), n, nil, func(*record.Record) error {
			l.term.end(record.ErrLeadLost)
			return nil
		})
		if !errors.Is(err, record.ErrLeadLost) {
			t.Errorf("error is %v", err)
		}
	})
}

// TestReadNeverGivesWrongData: what is missing or other than the state says is an error.
func TestReadNeverGivesWrongData(t *testing.T) {
	store := newMemStore()
	l := start(t, testConfig(t, t.TempDir(), store))
	l.bases("a")
	for i := range int64(5) {
		l.mustAppend(seal(t, "a", i*10, 10, 10))
	}
	n := l.cut()
	info, _ := l.Batch(n)
	at := info.FirstIndex + 2 - store.first
	damage := func(fn func(entries []int)) error {
		store.mu.Lock()
		kept := slices.Clone(store.entries)
		fn(nil)
		store.mu.Unlock()
		_, err := l.offsets(n)
		store.mu.Lock()
		store.entries = kept
		store.mu.Unlock()
		return err
	}
	if err := damage(func([]int) { store.entries[at].Data = seal(t, "a", 20, 9, 10) }); !errors.Is(err, ErrDamaged) {
		t.Errorf("another block gave %v", err)
	}
	if err := damage(func([]int) { store.entries[at].Data = nil }); !errors.Is(err, ErrDamaged) {
		t.Errorf("an empty entry gave %v", err)
	}
	if err := damage(func([]int) { store.entries[at].Data = []byte{record.TagBlock, 0xff} }); !errors.Is(err, ErrDamaged) {
		t.Errorf("garbage gave %v", err)
	}
	if err := damage(func([]int) { store.entries = store.entries[:at] }); !errors.Is(err, ErrDamaged) {
		t.Errorf("a missing end gave %v", err)
	}
	if diff := cmp.Diff(seq(0, 50), l.mustOffsets(n)); diff != "" {
		t.Error(diff)
	}
}

// TestReleaseWhileReading gives record.ErrReleased.
func TestReleaseWhileReading(t *testing.T) {
	store := newMemStore()
	cfg := testConfig(t, t.TempDir(), store)
	cfg.MaxBatches = 2
	l := start(t, cfg)
	l.bases("a")
	l.addSink("files")
	for i := range int64(5) {
		l.mustAppend(seal(t, "a", i, 1, 10))
	}
	l.cut()
	var got int
	err := l.term.Read(t.Context(), 1, nil, func(*record.Record) error {
		if got++; got > 1 {
			return nil
		}
		l.done("files", 1)
		if err := l.snapshot(); err != nil {
			return err
		}
		l.mustAppend(seal(t, "a", 5, 1, 10))
		l.cut()
		l.eventually("the release", func() bool {
			l.kick()
			first, _ := store.FirstIndex()
			return l.FirstSeq() == 2 && first > 5
		})
		return nil
	})
	if !errors.Is(err, record.ErrReleased) {
		t.Errorf("error is %v after %d records", err, got)
	}
}
