package faultfs

import (
	"hash/maphash"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReplayMakesCrashStates makes every state of short traces, and holds the
// last moment's against what may be left.
func TestReplayMakesCrashStates(t *testing.T) {
	sector := func(c string) string { return strings.Repeat(c, sectorSize) }
	a, b, zero := sector("a"), sector("b"), sector("\x00")
	made := []Event{
		{Op: OpCreate, Node: 20, Dir: 1, Name: "f"},
		{Op: OpWrite, Node: 20, Data: []byte(a)},
		{Op: OpSync, Node: 20},
		{Op: OpSyncDir, Node: 1},
	}
	cases := map[string]struct {
		events []Event
		want   []string
	}{
		"all durable": {made, []string{"f=" + a}},
		"name not durable": {
			made[:3],
			[]string{"", "f=" + a},
		},
		"data not durable": {
			[]Event{made[0], made[1], made[3]},
			[]string{"f=", "f=" + a, "f=" + zero},
		},
		"appended": {
			append(made[:4:4], Event{Op: OpWrite, Node: 20, Off: sectorSize, Data: []byte(b + b)}),
			[]string{
				"f=" + a, "f=" + a + b, "f=" + a + b + b, "f=" + a + zero, "f=" + a + zero + b,
				"f=" + a + b + zero, "f=" + a + zero + zero,
			},
		},
		"truncated": {
			append(made[:4:4], Event{Op: OpTruncate, Node: 20, Size: 1}),
			[]string{"f=" + a, "f=a"},
		},
		"renamed": {
			append(made[:4:4], Event{Op: OpRename, Node: 20, Dir: 1, Name: "f", NewDir: 1, NewName: "g"}),
			[]string{"f=" + a, "g=" + a},
		},
		"replaced": {
			append(made[:4:4],
				Event{Op: OpCreate, Node: 21, Dir: 1, Name: "tmp"}, Event{Op: OpSync, Node: 21},
				Event{Op: OpRename, Node: 21, Dir: 1, Name: "tmp", NewDir: 1, NewName: "f"}),
			[]string{"f=" + a, "f=" + a + " tmp=", "f="},
		},
		"unlinked, and a directory made": {
			append(made[:4:4], Event{Op: OpUnlink, Node: 20, Dir: 1, Name: "f"}, Event{Op: OpMkdir, Node: 21, Dir: 1, Name: "d"}),
			[]string{"", "d/", "d/ f=" + a, "f=" + a},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			trace := &Trace{Events: c.events, start: []imageNode{{id: 1, dir: true}}, seed: maphash.MakeSeed()}
			r, rng := trace.Replay(), rand.New(rand.NewPCG(1, 1))
			for ok := true; ok; {
				var err error
				if _, ok, err = r.Next(); err != nil {
					t.Fatal(err)
				}
			}
			got, sums := map[string]bool{}, map[uint64]bool{}
			for s, err := range r.States(rng, 400) {
				if err != nil {
					t.Fatal(err)
				}
				if sums[s.Sum] {
					continue
				}
				sums[s.Sum] = true
				dir := t.TempDir()
				if err := s.Write(dir); err != nil {
					t.Fatal(err)
				}
				got[picture(t, dir)] = true
			}
			slices.Sort(c.want)
			if diff := cmp.Diff(c.want, slices.Sorted(maps.Keys(got))); diff != "" {
				t.Error(diff)
			}
			if len(sums) != len(got) {
				t.Errorf("%d sums of %d states", len(sums), len(got))
			}
		})
	}
}

// picture writes a tree in one line.
func picture(t *testing.T, dir string) string {
	t.Helper()
	var words []string
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		if e.IsDir() {
			words = append(words, e.Name()+"/")
			return nil
		}
		b, err := os.ReadFile(p)
		words = append(words, e.Name()+"="+string(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(words, " ")
}
