package replicate

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"forebay/internal/record"
)

func TestOpenRefuses(t *testing.T) {
	entries := func(n int) *memStore {
		s := newMemStore()
		for i := range n {
			if err := s.StoreLog(&raft.Log{Index: uint64(i + 1), Term: 1, Type: raft.LogNoop}); err != nil {
				t.Fatal(err)
			}
		}
		return s
	}
	for _, tt := range []struct {
		name  string
		store *memStore
		make  func(t *testing.T, dir string)
		edit  func(*Config)
		want  string
	}{
		{name: "no node", edit: func(c *Config) { c.NodeID = "" }, want: "node's id is missing"},
		{name: "voters without transport", edit: func(c *Config) { c.Voters = make([]Voter, 3) }, want: "transport"},
		{name: "no directory", edit: func(c *Config) { c.Dir += "/missing" }, want: "no such file"},
		{name: "log lost", make: func(t *testing.T, dir string) {
			putTerm(t, dir, 4)
		}, want: "has seen term 4: the log of this directory is lost"},
		{name: "log shorter than the snapshot", store: entries(3), make: func(t *testing.T, dir string) {
			putTerm(t, dir, 9)
			writeSnapshot(t, openTestSnapshots(t, dir), 9, "x", true)
		}, want: "entries are lost"},
		{name: "state of a newer version", store: entries(9), make: func(t *testing.T, dir string) {
			putTerm(t, dir, 9)
			data := binary.LittleEndian.AppendUint64([]byte{payloadFormat + 1}, 9)
			writeSnapshot(t, openTestSnapshots(t, dir), 9, string(data)+strings.Repeat("x", 20), true)
		}, want: "a format that this program does not know"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.store == nil {
				tt.store = newMemStore()
			}
			if tt.make != nil {
				tt.make(t, dir)
			}
			cfg := testConfig(t, dir, tt.store)
			if tt.edit != nil {
				tt.edit(&cfg)
			}
			l, err := Open(cfg)
			if err == nil {
				t.Fatal("it opened", l.Close(context.Background()))
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

// putTerm stores a term as Raft does.
func putTerm(t *testing.T, dir string, term uint64) {
	t.Helper()
	s, err := openStable(dir, owner{"n1", "forebay", 0})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.SetUint64(currentTermKey, term), s.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestCrashWhileForming: the term was written, the first entry was not.
func TestCrashWhileForming(t *testing.T) {
	dir := t.TempDir()
	putTerm(t, dir, 1)
	l := start(t, testConfig(t, dir, newMemStore()))
	if _, ok := l.Identity(); !ok {
		t.Error("not formed")
	}
}

func TestDamagedSnapshotIsReplacedByReplay(t *testing.T) {
	dir, store := t.TempDir(), newMemStore()
	cfg := testConfig(t, dir, store)
	cfg.SnapshotEntries = 10
	l := start(t, cfg)
	l.bases("a")
	work(t, l, 0)
	l.eventually("a snapshot", func() bool { _, ok := l.snapshots.newest(); return ok })
	batches := l.Batches(1, 100)
	l.stop()
	newest, _ := l.snapshots.newest()
	if err := os.Truncate(newest.path, 50); err != nil {
		t.Fatal(err)
	}
	l = start(t, cfg)
	if diff := cmp.Diff(batches, l.Batches(1, 100)); diff != "" {
		t.Error(diff)
	}
	if found, _ := filepath.Glob(filepath.Join(dir, snapshotDir, "*"+damagedSuffix)); len(found) != 1 {
		t.Errorf("damaged files: %v", found)
	}
}

// TestCrashWithinAnInstall: the snapshot of a leader is durable, the old log is
// still there. The log begins anew after the snapshot, whatever its floor was.
func TestCrashWithinAnInstall(t *testing.T) {
	dir, store := t.TempDir(), newMemStore()
	cfg := testConfig(t, dir, store)
	l := start(t, cfg)
	l.bases("a")
	work(t, l, 0)
	data := append(make([]byte, payloadHeader), marshal(l)...)
	at, _ := store.LastIndex()
	l.stop()
	data[0] = payloadFormat
	binary.LittleEndian.PutUint64(data[1:], at+10)
	binary.LittleEndian.PutUint64(data[9:], 3)
	putTerm(t, dir, 3) // as Raft does before it takes a snapshot of that term
	writeSnapshot(t, openTestSnapshots(t, dir), at+10, string(data), false)

	l = start(t, cfg)
	if first, _ := store.FirstIndex(); first != at+11 {
		t.Errorf("the log begins at %d, want %d", first, at+11)
	}
	if _, err := l.offsets(1); !errors.Is(err, record.ErrReleased) {
		t.Errorf("a batch that was not installed gave %v", err)
	}
	next := l.next("a")
	l.mustAppend(seal(t, "a", next, 3, 10))
	l.stop()
	l = start(t, cfg)
	if got := l.next("a"); got != next+3 {
		t.Errorf("next is %d after a restart, want %d", got, next+3)
	}
}
