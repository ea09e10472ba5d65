package faultfs_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/faultfs"
)

// TestWhatAPowerCutLeaves does a few things in a directory that was synced, and
// cuts the power: what was not synced is gone, or all there.
func TestWhatAPowerCutLeaves(t *testing.T) {
	type files = map[string]string
	base := files{"base/": "", "base/old": "old", "base/gone": "gone"}
	with := func(changes files) files {
		all := files{}
		for k, v := range base {
			all[k] = v
		}
		for k, v := range changes {
			if all[k] = v; v == "-" {
				delete(all, k)
			}
		}
		return all
	}
	cases := map[string]struct {
		do             func(t *testing.T, dir string)
		dropped, whole files
	}{
		"file never synced": {
			func(t *testing.T, dir string) { write(t, create(t, dir+"/new"), "new") },
			base, with(files{"base/new": "new"}),
		},
		"file synced, directory not": {
			func(t *testing.T, dir string) {
				f := create(t, dir+"/new")
				write(t, f, "new")
				must(t, f.Sync())
			},
			base, with(files{"base/new": "new"}),
		},
		"directory synced, file not": {
			func(t *testing.T, dir string) {
				write(t, create(t, dir+"/new"), "new")
				syncDir(t, dir)
			},
			with(files{"base/new": ""}), with(files{"base/new": "new"}),
		},
		"both synced": {
			func(t *testing.T, dir string) {
				f := create(t, dir+"/new")
				write(t, f, "new")
				must(t, f.Sync())
				syncDir(t, dir)
				write(t, f, "er")
			},
			with(files{"base/new": "new"}), with(files{"base/new": "newer"}),
		},
		"datasync counts, size included": {
			func(t *testing.T, dir string) {
				f, err := os.OpenFile(dir+"/old", os.O_WRONLY|os.O_APPEND, 0)
				must(t, err)
				defer f.Close()
				write(t, f, "er")
				must(t, syscall.Fdatasync(int(f.Fd())))
				write(t, f, " still")
			},
			with(files{"base/old": "older"}), with(files{"base/old": "older still"}),
		},
		"overwritten and truncated": {
			func(t *testing.T, dir string) {
				f, err := os.OpenFile(dir+"/old", os.O_WRONLY, 0)
				must(t, err)
				defer f.Close()
				write(t, f, "OL")
				must(t, f.Truncate(1))
			},
			base, with(files{"base/old": "O"}),
		},
		"renamed over, directory not synced": {
			func(t *testing.T, dir string) {
				f := create(t, dir+"/tmp")
				write(t, f, "new")
				must(t, f.Sync())
				must(t, os.Rename(dir+"/tmp", dir+"/old"))
			},
			base, with(files{"base/old": "new"}),
		},
		"renamed, then its directory synced": {
			func(t *testing.T, dir string) {
				must(t, os.Rename(dir+"/old", dir+"/moved"))
				syncDir(t, dir)
			},
			with(files{"base/old": "-", "base/moved": "old"}), with(files{"base/old": "-", "base/moved": "old"}),
		},
		"renamed into another directory, that one synced": {
			func(t *testing.T, dir string) {
				must(t, os.Mkdir(dir+"/sub", 0o700))
				syncDir(t, dir)
				must(t, os.Rename(dir+"/old", dir+"/sub/old"))
				syncDir(t, dir+"/sub")
			},
			with(files{"base/sub/": "", "base/sub/old": "old"}),
			with(files{"base/sub/": "", "base/sub/old": "old", "base/old": "-"}),
		},
		"unlinked, directory not synced": {
			func(t *testing.T, dir string) { must(t, os.Remove(dir+"/gone")) },
			base, with(files{"base/gone": "-"}),
		},
		"unlinked and synced": {
			func(t *testing.T, dir string) {
				must(t, os.Remove(dir+"/gone"))
				syncDir(t, dir)
			},
			with(files{"base/gone": "-"}), with(files{"base/gone": "-"}),
		},
		"synced deep in a directory that was not": {
			func(t *testing.T, dir string) {
				must(t, os.MkdirAll(dir+"/a/b", 0o700))
				f := create(t, dir+"/a/b/c")
				write(t, f, "c")
				must(t, f.Sync())
				syncDir(t, dir+"/a/b")
				syncDir(t, dir+"/a")
			},
			base, with(files{"base/a/": "", "base/a/b/": "", "base/a/b/c": "c"}),
		},
		"a hard link": {
			func(t *testing.T, dir string) {
				must(t, os.Link(dir+"/old", dir+"/second"))
				syncDir(t, dir)
				must(t, os.Remove(dir+"/old"))
			},
			with(files{"base/second": "old"}), with(files{"base/second": "old", "base/old": "-"}),
		},
	}
	for name, c := range cases {
		for _, keep := range []faultfs.Keep{faultfs.KeepNothing(), faultfs.KeepAll()} {
			t.Run(name+", keep "+keep.String(), func(t *testing.T) {
				f := mount(t)
				dir := filepath.Join(f.Dir(), "base")
				must(t, os.Mkdir(dir, 0o700))
				for _, name := range []string{"old", "gone"} {
					file := create(t, filepath.Join(dir, name))
					write(t, file, name)
					must(t, file.Sync())
					must(t, file.Close())
				}
				syncDir(t, dir)
				syncDir(t, f.Dir())
				// Files of the test must be closed before the power can come back: it is the dead process.
				t.Run("do", func(t *testing.T) { c.do(t, dir) })
				f.PowerCut()
				_, err := os.Stat(dir)
				wantErrno(t, err, syscall.EIO)
				restore(t, f, keep)
				want := c.dropped
				if keep.String() == "all" {
					want = c.whole
				}
				if diff := cmp.Diff(want, tree(t, f.Dir())); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// TestACutRightAfterAnOpen: the file was made or opened, and nobody was told.
func TestACutRightAfterAnOpen(t *testing.T) {
	for _, op := range []faultfs.Op{faultfs.OpCreate, faultfs.OpOpen} {
		f := mount(t)
		must(t, create(t, f.Dir()+"/old").Close())
		rule := inject(t, f, faultfs.Rule{Path: "/*", Op: op, Times: 1, Cut: faultfs.CutAfter})
		name := map[faultfs.Op]string{faultfs.OpCreate: "/new", faultfs.OpOpen: "/old"}[op]
		_, err := os.OpenFile(f.Dir()+name, os.O_CREATE|os.O_RDWR, 0o600)
		wantErrno(t, err, syscall.EIO)
		rule.Remove()
		restore(t, f, faultfs.KeepAll()) // waits for open files
	}
}

// TestTornWrite overwrites eight sectors again and again: each state is made of
// old and new sectors, and all kinds of mixture come up.
func TestTornWrite(t *testing.T) {
	f := mount(t)
	name := filepath.Join(f.Dir(), "file")
	const sectors = 8
	before, after := strings.Repeat("a", sectors*512), strings.Repeat("b", sectors*512)
	seen := map[string]map[string]bool{"torn": {}, "prefix": {}}
	for seed := range uint64(40) {
		for kind, keep := range map[string]faultfs.Keep{"torn": faultfs.KeepTorn(seed), "prefix": faultfs.KeepPrefix(seed)} {
			must(t, os.WriteFile(name, []byte(before), 0o600))
			restore(t, f, faultfs.KeepAll())
			file, err := os.OpenFile(name, os.O_WRONLY, 0)
			must(t, err)
			write(t, file, after)
			must(t, file.Close())
			restore(t, f, keep)
			got, err := os.ReadFile(name)
			must(t, err)
			picture := ""
			for i := 0; i < len(got); i += 512 {
				sector := string(got[i:min(i+512, len(got))])
				if sector != before[:512] && sector != after[:512] {
					t.Fatalf("%v: sector %d is %.20q…", keep, i/512, sector)
				}
				picture += sector[:1]
			}
			if len(picture) != sectors || kind == "prefix" && strings.Contains(picture, "ab") {
				t.Fatalf("%v: %s", keep, picture)
			}
			seen[kind][picture] = true
		}
	}
	if len(seen["torn"]) < 12 || len(seen["prefix"]) < 5 {
		t.Errorf("too few kinds of state: %v", seen)
	}
}

// TestTornAppend: an append that was not synced leaves a file of any length up to
// its end, with zeros where data did not arrive.
func TestTornAppend(t *testing.T) {
	f := mount(t)
	name := filepath.Join(f.Dir(), "file")
	zeros, shorter := 0, 0
	for seed := range uint64(40) {
		must(t, os.WriteFile(name, []byte("0123456789"), 0o600))
		restore(t, f, faultfs.KeepAll())
		file, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
		must(t, err)
		write(t, file, strings.Repeat("x", 2000))
		must(t, file.Close())
		restore(t, f, faultfs.KeepTorn(seed))
		b, err := os.ReadFile(name)
		must(t, err)
		rest, ok := strings.CutPrefix(string(b), "0123456789")
		if !ok || strings.Trim(rest, "x\x00") != "" || len(b) > 2010 {
			t.Fatalf("seed %d: %d bytes, %.20q…", seed, len(b), b)
		}
		if strings.Contains(rest, "\x00") {
			zeros++
		}
		if len(rest) > 0 && len(rest) < 2000 {
			shorter++
		}
	}
	if zeros == 0 || shorter == 0 {
		t.Errorf("%d states with zeros, %d with a part of the size", zeros, shorter)
	}
}

// TestBackingHoldsTheTree: what is in the backing directory is durable when it is
// mounted, and the tree is there again afterwards.
func TestBackingHoldsTheTree(t *testing.T) {
	mount(t) // for the skip
	backing := t.TempDir()
	must(t, os.MkdirAll(backing+"/a/b", 0o700))
	must(t, os.WriteFile(backing+"/a/b/c", []byte("c"), 0o600))
	must(t, os.WriteFile(backing+"/empty", nil, 0o600))
	f, err := faultfs.Mount(backing, t.TempDir())
	must(t, err)
	restore(t, f, faultfs.KeepNothing())
	must(t, os.WriteFile(f.Dir()+"/a/d", []byte("d"), 0o600))
	must(t, os.Rename(f.Dir()+"/a/b/c", f.Dir()+"/a/e"))
	want := map[string]string{"a/": "", "a/b/": "", "a/d": "d", "a/e": "c", "empty": ""}
	if diff := cmp.Diff(want, tree(t, f.Dir())); diff != "" {
		t.Error(diff)
	}
	must(t, f.Close())
	if diff := cmp.Diff(want, tree(t, backing)); diff != "" {
		t.Error(diff)
	}
}

// TestTraceReplays records a workload of all operations: the state in which
// everything is kept, at the end, is the tree; marks are in their place.
func TestTraceReplays(t *testing.T) {
	f := mount(t)
	dir := f.Dir()
	must(t, os.WriteFile(dir+"/before", []byte("0123456789"), 0o600))
	must(t, f.Record())
	must(t, os.Mkdir(dir+"/sub", 0o700))
	file := create(t, dir+"/sub/new")
	write(t, file, "one")
	must(t, os.WriteFile(filepath.Join(dir, faultfs.MarkName), []byte("here"), 0o600))
	must(t, file.Sync())
	write(t, file, " two")
	must(t, os.Rename(dir+"/sub/new", dir+"/sub/moved"))
	must(t, os.Link(dir+"/sub/moved", dir+"/linked"))
	must(t, os.Truncate(dir+"/before", 5))
	must(t, os.Remove(dir+"/before"))
	must(t, os.Mkdir(dir+"/gone", 0o700))
	must(t, os.Remove(dir+"/gone"))
	write(t, file, " three")
	syncDir(t, dir)
	want := tree(t, dir)
	trace := f.Trace()
	r, kinds := trace.Replay(), faultfs.Op(0)
	for {
		e, ok, err := r.Next()
		must(t, err)
		if !ok {
			break
		}
		kinds |= e.Op
		if e.Op == 0 && (e.Mark != "here" || trace.Events[r.At()-2].Op != faultfs.OpWrite || trace.Events[r.At()].Op != faultfs.OpSync) {
			t.Errorf("event %d is %v", r.At(), e)
		}
	}
	all := faultfs.OpChange&^faultfs.OpAllocate | faultfs.OpSync | faultfs.OpSyncDir
	if kinds != all {
		t.Errorf("recorded %v, want %v", kinds, all)
	}
	for s, err := range r.States(nil, 0) {
		must(t, err)
		if s.How != "all" {
			continue
		}
		to := t.TempDir()
		must(t, s.Write(to))
		if diff := cmp.Diff(want, tree(t, to)); diff != "" {
			t.Error(diff)
		}
		return
	}
	t.Error("no state in which all is kept")
}
