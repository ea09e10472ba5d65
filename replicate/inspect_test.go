package replicate

import (
	"errors"
	"io/fs"
	"iter"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
)

// entriesOf walks over a store that nobody uses any more.
func entriesOf(store *memStore) Entries {
	return func(from uint64) iter.Seq2[*raft.Log, error] {
		return func(yield func(*raft.Log, error) bool) {
			_, last, err := bounds(store)
			for i := from; err == nil && i <= last; i++ {
				var l raft.Log
				if err = store.GetLog(i, &l); err == nil && !yield(&l, nil) {
					return
				}
			}
			if err != nil {
				yield(nil, err)
			}
		}
	}
}

// TestRebuild: the state that is read from a directory is the one that the lane had, with
// and without a snapshot, and as of any entry.
func TestRebuild(t *testing.T) {
	dir, store := t.TempDir(), newMemStore()
	l := start(t, testConfig(t, dir, store))
	l.bases("a")
	if err := l.term.AddSink(t.Context(), "files", "d", false); err != nil {
		t.Fatal(err)
	}
	work(t, l, 0)
	middle, at := marshal(l), l.AppliedIndex()
	if err := l.snapshot(); err != nil {
		t.Fatal(err)
	}
	l.mustAppend(seal(t, "a", 101, 1, 10))
	l.cut()
	want := marshal(l)
	if _, err := CheckStable(dir); !errors.Is(err, ErrInUse) {
		t.Errorf("CheckStable beside a lane that runs: %v", err)
	}
	l.stop()

	files, err := SnapshotFiles(dir)
	if err != nil || len(files) != 1 || files[0].Err != nil || files[0].Voters != 1 || !files[0].TakenHere || files[0].Index < at {
		t.Fatalf("%+v, %v", files, err)
	}
	same := func(what string, want []byte, last uint64) {
		t.Helper()
		st, err := Rebuild(dir, 1, last, entriesOf(store))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if diff := cmp.Diff(want, st.Marshal(nil)); diff != "" {
			t.Errorf("%s: another state", what)
		}
	}
	same("to the end, from a snapshot", want, math.MaxUint64)
	same("up to an entry before the snapshot", middle, at)
	if term, err := CheckStable(dir); err != nil || term == 0 {
		t.Errorf("term %d, %v", term, err)
	}

	b, err := os.ReadFile(filepath.Join(dir, files[0].Name))
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(filepath.Join(dir, files[0].Name), b, 0o600); err != nil {
		t.Fatal(err)
	}
	same("past a damaged snapshot", want, math.MaxUint64)
	if _, err := Rebuild(dir, 5, math.MaxUint64, entriesOf(store)); !errors.Is(err, ErrNoBase) {
		t.Errorf("from the middle of a log without a snapshot: %v", err)
	}
	if files, err := SnapshotFiles(dir); err != nil || len(files) != 1 || files[0].Err == nil {
		t.Errorf("a damaged snapshot: %+v, %v", files, err)
	}
}

// TestCheckStable: damage is an error, wherever it is, and never the end of the program.
func TestCheckStable(t *testing.T) {
	dir, store := t.TempDir(), newMemStore()
	if _, err := CheckStable(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("where there is none: %v", err)
	}
	start(t, testConfig(t, dir, store)).stop()
	path := filepath.Join(dir, stableName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, hurt := range map[string]func([]byte) []byte{
		"both heads": func(b []byte) []byte { clear(b[:8192]); return b },
		"empty":      func([]byte) []byte { return nil },
		"cut short":  func(b []byte) []byte { return b[:8192] },
		"pages":      func(b []byte) []byte { clear(b[8192:]); return b },
	} {
		if err := os.WriteFile(path, hurt(append([]byte(nil), whole...)), 0o600); err != nil {
			t.Fatal(err)
		}
		if term, err := CheckStable(dir); err == nil {
			t.Errorf("%s: term %d, and no error", name, term)
		}
	}
}
