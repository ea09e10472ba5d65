package replicate

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"forebay/internal/record"
	"forebay/replicate/state"
)

func marshal(l *lane) []byte {
	return see(l.views, func(st *state.State) []byte { return st.Marshal(nil) })
}

// work fills a lane with all kinds of entries.
func work(t *testing.T, l *lane, from int64) {
	t.Helper()
	for i := range int64(10) {
		l.mustAppend(seal(t, "a", from+i*10, 10, 100))
		if i%3 == 2 {
			l.cut()
		}
	}
	if err := l.append(seal(t, "a", 5, 1, 10)); !errors.Is(err, record.ErrRefused) {
		t.Fatalf("an old block settled with %v", err)
	}
	l.mustAppend(seal(t, "a", from+100, 1, 2<<20))
}

func TestRestartKeepsTheState(t *testing.T) {
	dir, store := t.TempDir(), newMemStore()
	cfg := testConfig(t, dir, store)
	l := start(t, cfg)
	id, _ := l.Identity()
	if id.LogID == (state.LogID{}) || id.Node != "n1" || id.Gateway != "forebay" {
		t.Fatalf("identity %+v", id)
	}
	l.bases("a")
	if err := l.term.AddSink(t.Context(), "files", "d", false); err != nil {
		t.Fatal(err)
	}
	work(t, l, 0)
	l.done("files", 1)
	batches, sinks, term := l.Batches(1, 100), l.Sinks(), l.term.Number()
	read := l.mustOffsets(2)
	l.stop()

	l = start(t, cfg)
	if now, _ := l.Identity(); now != id {
		t.Errorf("identity %+v became %+v", id, now)
	}
	if l.term.Number() <= term {
		t.Errorf("term %d after %d", l.term.Number(), term)
	}
	if diff := cmp.Diff(batches, l.Batches(1, 100)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(sinks, l.Sinks()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(read, l.mustOffsets(2)); diff != "" {
		t.Error(diff)
	}
	l.mustAppend(seal(t, "a", 101, 1, 10))
}

// TestSnapshotAndReplayAgree: a state from a snapshot and the entries after it
// is the one from all entries, and little is replayed.
func TestSnapshotAndReplayAgree(t *testing.T) {
	dir, store := t.TempDir(), newMemStore()
	cfg := testConfig(t, dir, store)
	cfg.SnapshotEntries = 7
	l := start(t, cfg)
	l.bases("a")
	work(t, l, 0)
	l.eventually("a snapshot", func() bool { _, ok := l.snapshots.newest(); return ok })
	want, last := marshal(l), l.AppliedIndex()
	l.stop()

	replayed := state.New()
	for i := range store.entries {
		if e := &store.entries[i]; e.Type == raft.LogCommand && e.Index <= last {
			replayed.Apply(e.Index, e.Data)
		}
	}
	if string(replayed.Marshal(nil)) != string(want) {
		t.Error("replaying the whole log gives another state")
	}
	opened, err := openSnapshots(dir, quiet)
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(store, opened, l.metrics)
	newest, _ := opened.newest()
	_, r, err := opened.Open(newest.meta.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Restore(r); err != nil {
		t.Fatal(err)
	}
	n := 0
	for i := range store.entries {
		if e := &store.entries[i]; e.Type == raft.LogCommand && e.Index > newest.meta.Index && e.Index <= last {
			m.st.Apply(e.Index, e.Data)
			n++
		}
	}
	if string(m.st.Marshal(nil)) != string(want) {
		t.Error("the snapshot and what follows give another state")
	}
	if n > 20 {
		t.Errorf("%d entries were replayed", n)
	}
}

func TestSnapshotsByBytes(t *testing.T) {
	cfg := testConfig(t, t.TempDir(), newMemStore())
	cfg.SnapshotBytes = 10_000
	l := start(t, cfg)
	l.bases("a")
	if _, ok := l.snapshots.newest(); ok {
		t.Fatal("a snapshot before anything was logged")
	}
	l.mustAppend(seal(t, "a", 0, 1, 9_000))
	l.mustAppend(seal(t, "a", 1, 1, 9_000))
	l.eventually("a snapshot", func() bool { _, ok := l.snapshots.newest(); return ok })
	if newest, _ := l.snapshots.newest(); !newest.takenHere {
		t.Error("the snapshot does not say that it was taken here")
	}
	l.eventually("counting anew", func() bool { return l.machine.bytes.Load() < 10_000 })
}

// TestBarrierBeforeLeading: HARD-CASES 3. Whatever is committed is in the state
// before fn is called, after each restart.
func TestBarrierBeforeLeading(t *testing.T) {
	dir, store := t.TempDir(), newMemStore()
	cfg := testConfig(t, dir, store)
	next := int64(0)
	for range 3 {
		l := start(t, cfg)
		if next == 0 {
			l.bases("a")
		}
		if got := l.next("a"); got != next {
			t.Fatalf("leading with next %d, want %d", got, next)
		}
		if got := see(l.views, (*state.State).Term); got != l.term.Number() {
			t.Fatalf("leading in term %d, the state's is %d", l.term.Number(), got)
		}
		for range 200 {
			l.mustAppend(seal(t, "a", next, 1, 10))
			next++
		}
		l.stop()
	}
}

// TestOldNewsDoNotEndATerm: Lead may find the lead won before it reads Raft's news of it.
func TestOldNewsDoNotEndATerm(t *testing.T) {
	opened, err := Open(testConfig(t, t.TempDir(), newMemStore()))
	if err != nil {
		t.Fatal(err)
	}
	l := &lane{Lane: opened, t: t}
	l.eventually("the lead, with the news unread", func() bool { return l.leads(1) && len(l.raft.LeaderCh()) == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err = l.Lead(ctx, func(_ context.Context, term *Term) {
		l.eventually("the news to be read", func() bool { return len(l.raft.LeaderCh()) == 0 })
		l.term = term
		l.bases("a")
		cancel()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("leading gave %v", err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestFatalEntryStopsTheLane(t *testing.T) {
	cfg := testConfig(t, t.TempDir(), newMemStore())
	lost := make(chan error, 2)
	cfg.Lost = func(err error) { lost <- err }
	l := start(t, cfg)
	l.bases("a")
	l.mustAppend(seal(t, "a", 0, 1, 10))
	before := marshal(l)
	var fatal *state.FatalError
	if err := l.term.doEncoded(t.Context(), []byte{0xff, 0xff}); !errors.As(err, &fatal) {
		t.Fatalf("an entry from the future gave %v", err)
	}
	if err := <-lost; !errors.As(err, &fatal) {
		t.Fatalf("lost with %v", err)
	}
	if err := l.append(seal(t, "a", 1, 1, 10)); !errors.As(err, &fatal) {
		t.Errorf("a block after it settled with %v", err)
	}
	if string(before) != string(marshal(l)) {
		t.Error("the state went on")
	}
	if err := l.snapshot(); err == nil {
		t.Error("a snapshot of a broken state was taken")
	}
	if len(lost) != 0 {
		t.Error("lost twice")
	}
}

func TestStatus(t *testing.T) {
	l := start(t, testConfig(t, t.TempDir(), newMemStore()))
	l.bases("a")
	got := l.Status()
	want := Status{
		Role: "leader", Leader: "n1", Term: l.term.Number(), First: 1, Last: got.Last,
		Floor: got.Last + 1, Applied: got.Last, Bytes: got.Bytes,
	}
	if diff := cmp.Diff(want, got); diff != "" || got.Last == 0 || got.Bytes == 0 {
		t.Errorf("%+v\n%s", got, diff)
	}
}

func TestClosedLane(t *testing.T) {
	l := start(t, testConfig(t, t.TempDir(), newMemStore()))
	l.stop()
	if err := l.Lead(t.Context(), func(context.Context, *Term) { t.Error("led") }); !errors.Is(err, ErrClosed) {
		t.Errorf("leading gave %v", err)
	}
	if err := l.term.Cut(t.Context(), 1, 1); !errors.Is(err, record.ErrLeadLost) {
		t.Errorf("a cut gave %v", err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Errorf("closing again gave %v", err)
	}
}

func TestChanged(t *testing.T) {
	l := start(t, testConfig(t, t.TempDir(), newMemStore()))
	changed := l.term.Changed()
	select {
	case <-changed:
		t.Fatal("changed before anything happened")
	default:
	}
	l.bases("a")
	<-changed
	changed = l.term.Changed()
	l.mustAppend(seal(t, "a", 0, 1, 10))
	<-changed
}

// TestFailedSnapshotIsTriedAgain: nothing is counted as covered by it.
func TestFailedSnapshotIsTriedAgain(t *testing.T) {
	dir := t.TempDir()
	l := start(t, testConfig(t, dir, newMemStore()))
	l.bases("a")
	work(t, l, 0)
	if err := os.Rename(filepath.Join(dir, snapshotDir), filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	before := l.machine.entries.Load()
	if err := l.snapshot(); err == nil {
		t.Fatal("a snapshot without a directory was taken")
	}
	if got := l.machine.entries.Load(); got < before {
		t.Errorf("%d entries are left to cover, of %d", got, before)
	}
	if err := os.Rename(filepath.Join(dir, "away"), filepath.Join(dir, snapshotDir)); err != nil {
		t.Fatal(err)
	}
	if err := l.snapshot(); err != nil {
		t.Fatal(err)
	}
	if got := l.machine.entries.Load(); got != 0 {
		t.Errorf("%d entries are left to cover", got)
	}
}
