package replicate

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
)

// killed copies what a kill at this moment leaves of a running lane: its directory and its log.
func killed(t *testing.T, cfg Config) Config {
	t.Helper()
	dir := t.TempDir()
	// Snapshots come by rename, and stable.db is written by nobody while the lead is steady.
	if err := os.CopyFS(dir, os.DirFS(cfg.Dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "lock")); err != nil {
		t.Fatal(err)
	}
	from, to := cfg.Store.(*memStore), newMemStore()
	from.mu.Lock()
	defer from.mu.Unlock()
	to.first, to.entries, to.floor, to.bytes = from.first, slices.Clone(from.entries), from.floor, from.bytes
	cfg.Dir, cfg.Store = dir, to
	return cfg
}

// replayed is how many entries lie behind the newest snapshot, and their bytes.
func replayed(t *testing.T, cfg Config) (entries, bytes int64) {
	t.Helper()
	newest, err := NewestSnapshot(cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	_, last, err := bounds(cfg.Store)
	if err != nil {
		t.Fatal(err)
	}
	return int64(last - newest.Index), cfg.Store.Bytes() - cfg.Store.BytesBefore(newest.Index+1)
}

// TestReplayIsBounded: what a start replays is bounded by SnapshotBytes and
// SnapshotEntries, whatever a kill leaves and although nothing is delivered, so that
// the floor and with it the log's beginning never move.
func TestReplayIsBounded(t *testing.T) {
	const block = 4 << 10
	for _, tt := range []struct {
		name           string
		bytes, entries int64
		least          int // snapshots that many blocks must have brought about
	}{
		{"by entries", 0, 25, 8},
		{"by bytes", 16 * block, 0, 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := testConfig(t, t.TempDir(), newMemStore())
			cfg.SnapshotBytes, cfg.SnapshotEntries = tt.bytes, tt.entries
			l := start(t, cfg)
			l.bases("a")
			if err := l.term.AddSink(t.Context(), "dead", "d", false); err != nil {
				t.Fatal(err)
			}
			taken := map[uint64]bool{}
			for i := range int64(240) {
				l.mustAppend(seal(t, "a", i, 1, block))
				if i%10 == 9 {
					l.cut()
				}
				// A snapshot that is due comes before the next block, or this test would race with it.
				l.eventually("the snapshot that is due", func() bool { return !l.snapshotDue() })
				newest, _ := l.snapshots.newest()
				taken[newest.meta.Index] = true
			}
			if len(taken) < tt.least {
				t.Errorf("%d snapshots, want at least %d", len(taken), tt.least)
			}
			if first, _ := cfg.Store.FirstIndex(); first != 1 {
				t.Errorf("the log begins at %d although nothing was delivered", first)
			}
			after := killed(t, cfg)
			if entries, bytes := replayed(t, after); tt.entries > 0 && entries > tt.entries || tt.bytes > 0 && bytes > tt.bytes+block {
				t.Errorf("a start replays %d entries of %d bytes", entries, bytes)
			}
			next := l.next("a")
			l.stop()
			again := start(t, after)
			if got := again.next("a"); got != next {
				t.Errorf("next is %d after a kill, want %d", got, next)
			}
			if files, _ := filepath.Glob(filepath.Join(after.Dir, snapshotDir, "*"+snapshotSuffix)); len(files) > keepBetween+2 {
				t.Errorf("%d snapshots are kept", len(files))
			}
		})
	}
}

// TestRestartsAloneAreReplayedNoFurther: a node that is started and killed over and over, and
// gets nothing to do, adds some entries of Raft's at each start. They count, too.
func TestRestartsAloneAreReplayedNoFurther(t *testing.T) {
	cfg := testConfig(t, t.TempDir(), newMemStore())
	cfg.SnapshotEntries = 20
	for range 25 {
		l := start(t, cfg)
		l.eventually("the snapshot that is due", func() bool { return !l.snapshotDue() })
		after := killed(t, cfg)
		// What follows the last command of a start is seen with the next one's.
		if entries, _ := replayed(t, after); entries > cfg.SnapshotEntries+3 {
			t.Fatalf("a start replays %d entries, want at most %d", entries, cfg.SnapshotEntries)
		}
		l.stop()
		cfg = after
	}
}

// readCountingStore counts how often entries' data were read.
type readCountingStore struct {
	*memStore
	reads map[uint64]int
}

func (s *readCountingStore) GetLog(index uint64, out *raft.Log) error {
	err := s.memStore.GetLog(index, out)
	if err == nil && out.Type == raft.LogCommand {
		s.mu.Lock()
		s.reads[index]++
		s.mu.Unlock()
	}
	return err
}

// TestAStartReadsNoCommandAgain: to look for configurations, and to apply it, Raft goes through all that
// follows the snapshot. It gets what was kept of it when the log was opened.
func TestAStartReadsNoCommandAgain(t *testing.T) {
	cfg := testConfig(t, t.TempDir(), newMemStore())
	l := start(t, cfg)
	l.bases("a")
	work(t, l, 0)
	_, last, _ := bounds(cfg.Store)
	l.stop()
	store := &readCountingStore{cfg.Store.(*memStore), map[uint64]int{}}
	cfg.Store = store
	again := start(t, cfg)
	again.eventually("everything is applied", func() bool { return again.AppliedIndex() > last })
	store.mu.Lock()
	defer store.mu.Unlock()
	commands := 0
	for i := range store.entries {
		if e := &store.entries[i]; e.Type == raft.LogCommand && e.Index <= last {
			commands++
			if n := store.reads[e.Index]; n != 0 {
				t.Errorf("entry %d was read %d times from the log", e.Index, n)
			}
		}
	}
	if commands < 20 {
		t.Errorf("only %d commands: this shows nothing", commands)
	}
}

// TestAStartVerifiesTheNewestSnapshotOnly: of 18 states that are kept a start reads one. An older one is
// verified when it is used: given out, or in the place of a newest one that is damaged.
func TestAStartVerifiesTheNewestSnapshotOnly(t *testing.T) {
	dir := t.TempDir()
	s := openTestSnapshots(t, dir)
	for index := uint64(1); index <= 4; index++ {
		writeSnapshot(t, s, index*10, "state", true)
	}
	rot := func(i int) string {
		t.Helper()
		path := s.list[i].path
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)-snapshotTrailer-1] ^= 1
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	rot(1)
	opened := openTestSnapshots(t, dir)
	if len(opened.list) != 4 || len(opened.damaged) != 0 {
		t.Errorf("%d snapshots and %d damaged", len(opened.list), len(opened.damaged))
	}
	var bad *SnapshotError
	if _, _, err := opened.Open(opened.list[1].meta.ID); !errors.As(err, &bad) {
		t.Errorf("a damaged snapshot was given out: %v", err)
	}
	rot(0)
	opened = openTestSnapshots(t, dir)
	if newest, _ := opened.newest(); newest.meta.Index != 20 || len(opened.damaged) != 2 {
		t.Errorf("newest whole is %d, %d damaged", newest.meta.Index, len(opened.damaged))
	}
	if point, err := NewestSnapshot(dir); err != nil || point.Index != 20 {
		t.Errorf("newest is %+v, %v", point, err)
	}
}
