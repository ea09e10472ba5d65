package replicate

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
)

var quiet = slog.New(slog.DiscardHandler)

func openTestSnapshots(t *testing.T, dir string) *snapshotStore {
	t.Helper()
	s, err := openSnapshots(dir, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// writeSnapshot makes one as if it were taken here (or installed by a leader).
func writeSnapshot(t *testing.T, s *snapshotStore, index uint64, data string, here bool) {
	t.Helper()
	conf := raft.Configuration{Servers: []raft.Server{{ID: "n1", Address: "a"}}}
	sink, err := s.Create(raft.SnapshotVersionMax, index, 3, conf, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if here {
		if err := sink.(*snapshotSink).begin(true); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(sink, data); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
}

func listed(t *testing.T, s *snapshotStore) []uint64 {
	t.Helper()
	metas, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	var indexes []uint64
	for _, m := range metas {
		indexes = append(indexes, m.Index)
	}
	return indexes
}

func TestSnapshotRoundTrip(t *testing.T) {
	dir := t.TempDir()
	writeSnapshot(t, openTestSnapshots(t, dir), 42, "the state", true)
	s := openTestSnapshots(t, dir)
	newest, ok := s.newest()
	if !ok || !newest.takenHere {
		t.Fatalf("newest is %+v, %v", newest, ok)
	}
	meta, r, err := s.Open(newest.meta.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil || string(data) != "the state" {
		t.Fatalf("data is %q, %v", data, err)
	}
	want := &raft.SnapshotMeta{
		Version: raft.SnapshotVersionMax, ID: "00000000000000000003-00000000000000000042", Index: 42, Term: 3,
		Configuration:      raft.Configuration{Servers: []raft.Server{{ID: "n1", Address: "a"}}},
		ConfigurationIndex: 1, Size: 9,
	}
	if diff := cmp.Diff(want, meta); diff != "" {
		t.Error(diff)
	}
}

// TestSnapshotDamageIsFound flips and cuts every byte of a file.
func TestSnapshotDamageIsFound(t *testing.T) {
	dir := t.TempDir()
	s := openTestSnapshots(t, dir)
	writeSnapshot(t, s, 42, "the state", true)
	newest, _ := s.newest()
	whole, err := os.ReadFile(newest.path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, at int, content []byte) {
		t.Helper()
		if err := os.WriteFile(newest.path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := readSnapshot(newest.path)
		var bad *SnapshotError
		if !errors.As(err, &bad) {
			t.Errorf("%s at %d: error is %v", what, at, err)
		}
	}
	for i := range whole {
		flipped := append([]byte{}, whole...)
		flipped[i] ^= 0x20
		check("flip", i, flipped)
		check("cut", i, whole[:i])
	}
	check("extra byte", len(whole), append(append([]byte{}, whole...), 0))
}

func TestNewerSnapshotIsNotTouched(t *testing.T) {
	dir := t.TempDir()
	s := openTestSnapshots(t, dir)
	writeSnapshot(t, s, 42, "the state", true)
	newest, _ := s.newest()
	content, err := os.ReadFile(newest.path)
	if err != nil {
		t.Fatal(err)
	}
	content[len(snapshotMagic)]++
	if err := os.WriteFile(newest.path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = openSnapshots(dir, quiet)
	if err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("error is %v", err)
	}
	if now, err := os.ReadFile(newest.path); err != nil || !cmp.Equal(now, content) {
		t.Errorf("the file was changed: %v", err)
	}
}

func TestStaleTemporarySnapshotsAreRemoved(t *testing.T) {
	dir := t.TempDir()
	s := openTestSnapshots(t, dir)
	sink, err := s.Create(raft.SnapshotVersionMax, 7, 1, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sink.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	// The crash: the sink is neither closed nor cancelled.
	s = openTestSnapshots(t, dir)
	if got := listed(t, s); got != nil {
		t.Errorf("snapshots %v", got)
	}
	entries, err := os.ReadDir(filepath.Join(dir, snapshotDir))
	if err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	sink.(*snapshotSink).file.Close()
}

// TestSnapshotThatIsSentLiesBelowTheFloor: HARD-CASES 10.
func TestSnapshotThatIsSentLiesBelowTheFloor(t *testing.T) {
	s := openTestSnapshots(t, t.TempDir())
	for _, index := range []uint64{10, 20, 30, 40} {
		writeSnapshot(t, s, index, "x", true)
	}
	if diff := cmp.Diff([]uint64{40, 30, 20, 10}, listed(t, s)); diff != "" {
		t.Errorf("before the start: %s", diff)
	}
	s.serve()
	for _, tt := range []struct {
		floor, keep uint64
		want        []uint64
	}{
		{5, 0, nil},
		{10, 0, nil}, // a follower given snapshot 10 would never get entry 10
		{11, 10, []uint64{10}},
		{30, 20, []uint64{20, 10}},
		{99, 40, []uint64{40, 30, 20, 10}},
	} {
		if keep := s.setFloor(tt.floor); keep != tt.keep {
			t.Errorf("floor %d: the log keeps %d, want %d", tt.floor, keep, tt.keep)
		}
		if diff := cmp.Diff(tt.want, listed(t, s)); diff != "" {
			t.Errorf("floor %d: %s", tt.floor, diff)
		}
	}
}

func TestKeptSnapshots(t *testing.T) {
	for _, tt := range []struct {
		name string
		n    int
		size int64
		want int
	}{
		{"none", 0, 0, keepBetween},
		{"small ones", 100, 100 << 10, keepMost},
		{"such as just fit", 100, keepBytes, 100},
		{"larger ones", 50, keepBytes * 2, 25},
		{"huge ones", 17, 17 << 30, keepBetween},
	} {
		if got := kept(tt.n, tt.size); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestSuperfluousSnapshots(t *testing.T) {
	for _, tt := range []struct {
		name    string
		indexes []uint64
		floor   uint64
		keep    int
		want    []uint64
	}{
		{"none", nil, 5, 2, nil},
		{"one", []uint64{10}, 5, 2, nil},
		{"older than the floor's", []uint64{40, 30, 20, 10}, 35, 2, []uint64{20, 10}},
		{"all above the floor", []uint64{40, 30, 20, 10}, 5, 2, nil},
		{"the closest goes", []uint64{100, 90, 50, 48, 10}, 11, 2, []uint64{48}},
		{"evenly", []uint64{60, 50, 40, 30, 20, 10}, 11, 2, []uint64{50, 30}},
		{"newest and floor's stay", []uint64{60, 50, 40, 30, 20, 10}, 11, 0, []uint64{50, 40, 30, 20}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []uint64
			for _, i := range superfluous(tt.indexes, tt.floor, tt.keep) {
				got = append(got, tt.indexes[i])
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSnapshotsAgainstTheLog(t *testing.T) {
	const ok = ""
	for _, tt := range []struct {
		name        string
		snapshots   []uint64
		installed   bool
		damaged     uint64 // index of one to damage
		first, last uint64
		empty       uint64
		err         string
	}{
		{name: "nothing"},
		{name: "log only", first: 1, last: 9},
		{name: "log without its beginning", first: 5, last: 9, err: "no snapshot"},
		{name: "log from the snapshot on", snapshots: []uint64{4}, first: 5, last: 9},
		{name: "log with the snapshot's entry", snapshots: []uint64{4}, first: 4, last: 9},
		{name: "hole after the snapshot", snapshots: []uint64{4}, first: 6, last: 9, err: "entries between are lost"},
		{name: "log ends before the snapshot", snapshots: []uint64{20}, first: 1, last: 9, err: "entries are lost"},
		{name: "log is gone", snapshots: []uint64{20}, err: "entries are lost"},
		{name: "crash within an install", snapshots: []uint64{20}, installed: true, first: 1, last: 9, empty: 20},
		{name: "install into an empty log", snapshots: []uint64{20}, installed: true, empty: 20},
		{name: "newest damaged, older will do", snapshots: []uint64{4, 8}, damaged: 8, first: 4, last: 9},
		{name: "newest damaged, log from the beginning", snapshots: []uint64{8}, damaged: 8, first: 1, last: 9},
		{name: "newest damaged, nothing replaces it", snapshots: []uint64{4, 8}, damaged: 8, first: 7, last: 9, err: "checksum is wrong"},
		{name: "only one, damaged", snapshots: []uint64{8}, damaged: 8, first: 7, last: 9, err: "cannot replace it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			s := openTestSnapshots(t, dir)
			for _, index := range tt.snapshots {
				writeSnapshot(t, s, index, "x", !tt.installed)
				if index == tt.damaged {
					newest, _ := s.newest()
					content, _ := os.ReadFile(newest.path)
					content[len(content)-1] ^= 1
					if err := os.WriteFile(newest.path, content, 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			point, err := NewestSnapshot(dir)
			s = openTestSnapshots(t, dir)
			newest, _ := s.newest()
			want := Newest{newest.meta.Index, newest.meta.Term, newest.takenHere}
			if err != nil || point != want {
				t.Errorf("newest is %+v, %v, want %+v", point, err, want)
			}
			after, err := s.check(tt.first, tt.last)
			if after.Index != tt.empty {
				t.Errorf("log emptied after %d, want %d", after.Index, tt.empty)
			}
			if (err == nil) != (tt.err == ok) || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error is %v, want %q", err, tt.err)
			}
		})
	}
}

func FuzzReadSnapshot(f *testing.F) {
	dir := f.TempDir()
	s, err := openSnapshots(dir, quiet)
	if err != nil {
		f.Fatal(err)
	}
	sink, err := s.Create(raft.SnapshotVersionMax, 42, 3, raft.Configuration{Servers: []raft.Server{{ID: "n1", Address: "a"}}}, 1, nil)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := io.WriteString(sink, "the state"); err != nil {
		f.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		f.Fatal(err)
	}
	newest, _ := s.newest()
	whole, err := os.ReadFile(newest.path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), newest.meta.ID+snapshotSuffix)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		info, err := readSnapshot(path)
		var bad *SnapshotError
		if err != nil && !errors.As(err, &bad) {
			t.Fatalf("untyped error %v", err)
		}
		if err == nil && info.dataAt+info.meta.Size+int64(snapshotTrailer) != int64(len(content)) {
			t.Fatalf("%+v of %d bytes", info, len(content))
		}
	})
}
