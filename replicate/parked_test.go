package replicate

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/record"
)

func refusal(offset int64) record.Refusal {
	return record.Refusal{RecordID: record.RecordID{Topic: "a", Offset: offset}, Reason: "too strange"}
}

// TestRefusedRecordsAreParked: HARD-CASES 24.
func TestRefusedRecordsAreParked(t *testing.T) {
	l := start(t, testConfig(t, t.TempDir(), newMemStore()))
	l.bases("a")
	l.addSink("files")
	l.mustAppend(seal(t, "a", 0, 10, 10))
	l.mustAppend(seal(t, "a", 10, 10, 10))
	n := l.cut()
	refusals := []record.Refusal{refusal(15), refusal(3), refusal(15)}
	for range 2 { // a repetition changes nothing
		if err := l.term.Refuse(t.Context(), "files", n, false, refusals); err != nil {
			t.Fatal(err)
		}
	}
	want := []record.RecordID{{Topic: "a", Offset: 3}, {Topic: "a", Offset: 15}}
	if diff := cmp.Diff(want, l.term.Excluded("files", n)); diff != "" {
		t.Error(diff)
	}
	if err := l.term.Refuse(t.Context(), "files", n, false, []record.Refusal{refusal(99)}); !errors.Is(err, record.ErrRefused) {
		t.Errorf("a record of no batch gave %v", err)
	}
	refs := l.Parked()
	if len(refs) != 2 {
		t.Fatalf("parked %+v", refs)
	}
	for _, ref := range refs {
		_, rec, err := l.ReadParked(t.Context(), ref.ID)
		if err != nil || rec.Offset != ref.Record.Offset || !bytes.Equal(rec.Value, payload(rec.Offset, 10)) {
			t.Errorf("parked record %d is %+v, %v", ref.ID, rec, err)
		}
	}
	if err := l.term.Discard(t.Context(), []uint64{refs[0].ID}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.ReadParked(t.Context(), refs[0].ID); !errors.Is(err, record.ErrReleased) {
		t.Errorf("a discarded record gave %v", err)
	}
}

func TestParkedRecordsAreBounded(t *testing.T) {
	cfg := testConfig(t, t.TempDir(), newMemStore())
	cfg.ParkedMaxBytes = 1000
	l := start(t, cfg)
	l.bases("a")
	l.addSink("files")
	l.mustAppend(seal(t, "a", 0, 10, 300))
	n := l.cut()
	if err := l.term.Refuse(t.Context(), "files", n, false, []record.Refusal{refusal(1)}); err != nil {
		t.Fatal(err)
	}
	if err := l.term.Refuse(t.Context(), "files", n, false, []record.Refusal{refusal(2)}); !errors.Is(err, ErrParkedFull) {
		t.Errorf("parking beyond the bound gave %v", err)
	}
	if err := l.term.Refuse(t.Context(), "files", n, false, []record.Refusal{refusal(1)}); err != nil {
		t.Errorf("parking again what is parked gave %v", err)
	}
	if err := l.term.Refuse(t.Context(), "files", n, true, []record.Refusal{refusal(2)}); err != nil {
		t.Errorf("dropping gave %v", err)
	}
}

// TestParkedRecordsAreCarriedBeforeTheFloorPasses: HARD-CASES 24. The records, small and
// large, outlive the log that they came in.
func TestParkedRecordsAreCarriedBeforeTheFloorPasses(t *testing.T) {
	dir, store := t.TempDir(), newMemStore()
	cfg := testConfig(t, dir, store)
	cfg.ParkedMaxBytes = 10 << 20
	cfg.MaxBatches = 8
	cfg.SnapshotEntries = 10
	l := start(t, cfg)
	l.bases("a")
	l.addSink("files")
	l.mustAppend(seal(t, "a", 0, 10, 10))
	l.mustAppend(seal(t, "a", 10, 1, 3<<20))
	n := l.cut()
	if err := l.term.Refuse(t.Context(), "files", n, false, []record.Refusal{refusal(3), refusal(10)}); err != nil {
		t.Fatal(err)
	}
	was := l.Parked()
	l.done("files", n)
	for i := range int64(30) {
		l.mustAppend(seal(t, "a", 11+i, 1, 10))
		l.done("files", l.cut())
		// The log shrinks to a snapshot: those that are due must not be skipped for the speed of a test.
		l.eventually("the snapshot that is due", func() bool { return !l.snapshotDue() })
	}
	l.eventually("the log to shrink past the parked batch", func() bool {
		first, _ := store.FirstIndex()
		return first > was[1].Indexes[len(was[1].Indexes)-1]
	})
	check := func() {
		t.Helper()
		for i, ref := range l.Parked() {
			if !ref.Copied || ref.Record != was[i].Record {
				t.Errorf("parked %+v", ref)
			}
			_, rec, err := l.ReadParked(t.Context(), ref.ID)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(rec.Value, payload(rec.Offset, len(rec.Value))) || len(rec.Value) != []int{10, 3 << 20}[i] {
				t.Errorf("parked record %d has another value", ref.ID)
			}
		}
	}
	check()
	l.stop()
	l = start(t, cfg)
	check()
}

// TestParkedRecordsAreCarriedTogether: their copies share syncs, and come out right in any order.
func TestParkedRecordsAreCarriedTogether(t *testing.T) {
	const count = 40
	store := newMemStore()
	cfg := testConfig(t, t.TempDir(), store)
	cfg.ParkedMaxBytes = 10 << 20
	l := start(t, cfg)
	l.bases("a")
	l.addSink("files")
	l.mustAppend(seal(t, "a", 0, count-1, 10))
	l.mustAppend(seal(t, "a", count-1, 1, 3<<20))
	n := l.cut()
	refusals := make([]record.Refusal, count)
	for i := range refusals {
		refusals[i] = refusal(int64(i))
	}
	if err := l.term.Refuse(t.Context(), "files", n, false, refusals); err != nil {
		t.Fatal(err)
	}
	release := store.hold()
	defer release()
	store.mu.Lock()
	store.biggest = 0
	store.mu.Unlock()
	carried := make(chan error, 1)
	go func() { carried <- l.term.carryAll(l.Parked()) }()
	l.eventually("as many under way as may be", func() bool { return len(l.control) == carryTogether })
	release()
	if err := <-carried; err != nil {
		t.Fatal(err)
	}
	if store.biggest < 2 { // how they fall into groups is Raft's affair
		t.Error("each copy had a sync of its own")
	}
	for i, ref := range l.Parked() {
		_, rec, err := l.ReadParked(t.Context(), ref.ID)
		if err != nil || !ref.Copied || rec.Offset != int64(i) || !bytes.Equal(rec.Value, payload(rec.Offset, len(rec.Value))) {
			t.Errorf("parked %+v reads as %v, %v", ref, rec, err)
		}
	}
}
