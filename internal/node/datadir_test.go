package node

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// openNow opens a data directory without waiting for anybody.
func openNow(t *testing.T, path, node, gateway string) (*dataDir, error) {
	t.Helper()
	d, err := openDataDir(t.Context(), path, node, gateway, turn{})
	if err == nil {
		t.Cleanup(d.close)
	}
	return d, err
}

// claimed is a data directory of node n1 of gateway g, let go of again.
func claimed(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "data")
	d, err := openNow(t, path, "n1", "g")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.lane(0); err != nil {
		t.Fatal(err)
	}
	d.close()
	return path
}

// edit changes node.json as a map.
func edit(t *testing.T, path string, change func(map[string]any)) {
	t.Helper()
	name := filepath.Join(path, "node.json")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]any{}
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	change(fields)
	if text, err = json.Marshal(fields); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestADataDirectoryThatIsNotThisNodes(t *testing.T) {
	write := func(text string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(path, "node.json"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	set := func(key string, value any) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			t.Helper()
			edit(t, path, func(m map[string]any) { m[key] = value })
		}
	}
	for name, c := range map[string]struct {
		change func(t *testing.T, path string)
		words  string
	}{
		"of another node":                               {set("node", "n2"), `belongs to node "n2", this is node "n1": correct node.id or node.dataDir`},
		"of another gateway":                            {set("gateway", "h"), `belongs to gateway "h", this is gateway "g": correct node.gateway or node.dataDir`},
		"of a newer version":                            {set("version", 2), "has format version 2, this program reads version 1: run the version of Forebay that wrote it; nothing was touched"},
		"of a newer version with fields of other kinds": {write(`{"version": 7, "node": {"id": "n1"}}`), "has format version 7"},
		"of no version":                                 {write(`{}`), "has format version 0"},
		"torn":                                          {write(`{"version": 1, "no`), "node.json is damaged"},
		"emptied":                                       {write(""), "node.json is damaged"},
		"with no incarnation":                           {set("incarnation", ""), `node.json is damaged (incarnation "")`},
		"with a short incarnation":                      {set("incarnation", "00ff"), `node.json is damaged (incarnation "00ff")`},
		"with a long incarnation":                       {set("incarnation", strings.Repeat("0", 34)), "node.json is damaged"},
		"with a log and no node.json": {func(t *testing.T, path string) {
			t.Helper()
			if err := os.Remove(filepath.Join(path, "node.json")); err != nil {
				t.Fatal(err)
			}
		}, "holds a log but no node.json: restore node.json, or move the directory away to begin anew"},
	} {
		t.Run(name, func(t *testing.T) {
			path := claimed(t)
			c.change(t, path)
			before := contents(t, path)
			_, err := openNow(t, path, "n1", "g")
			if !errors.Is(err, ErrForeignData) || !strings.Contains(err.Error(), c.words) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want ErrForeignData, %q and the path", err, c.words)
			}
			if diff := cmp.Diff(before, contents(t, path)); diff != "" {
				t.Errorf("the directory was changed (-before +after):\n%s", diff)
			}
		})
	}
}

// contents lists files with their text.
func contents(t *testing.T, path string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(path, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "lock" {
			return err
		}
		text, err := os.ReadFile(name)
		all[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestADataDirectoryKeepsItsIncarnation(t *testing.T) {
	path := claimed(t)
	first, err := openNow(t, path, "n1", "g")
	if err != nil {
		t.Fatal(err)
	}
	first.close()
	again, err := openNow(t, path, "n1", "g")
	if err != nil {
		t.Fatal(err)
	}
	if first.incarnation != again.incarnation || again.incarnation == [16]byte{} {
		t.Errorf("incarnation %x, then %x", first.incarnation, again.incarnation)
	}
	if other, err := openNow(t, filepath.Join(t.TempDir(), "d"), "n1", "g"); err != nil || other.incarnation == first.incarnation {
		t.Errorf("another directory: %v, incarnation %x as well", err, other.incarnation)
	}
}

// TestALanesDirectoryThatIsGone: what was in it must not be missed in silence.
func TestALanesDirectoryThatIsGone(t *testing.T) {
	for name, remove := range map[string]func(lane string) error{
		"removed":         os.RemoveAll,
		"emptied":         func(lane string) error { return errors.Join(os.RemoveAll(lane), os.Mkdir(lane, 0o750)) },
		"with its parent": func(lane string) error { return os.RemoveAll(filepath.Dir(lane)) },
	} {
		t.Run(name, func(t *testing.T) {
			path := claimed(t)
			d, err := openNow(t, path, "n1", "g")
			if err != nil {
				t.Fatal(err)
			}
			lane, err := d.lane(0)
			if err != nil {
				t.Fatal(err)
			}
			if err := d.formed(0); err != nil {
				t.Fatal(err)
			}
			d.close()
			if err := remove(lane); err != nil {
				t.Fatal(err)
			}
			if d, err = openNow(t, path, "n1", "g"); err != nil {
				t.Fatal(err)
			}
			_, err = d.lane(0)
			if !errors.Is(err, ErrForeignData) || !strings.Contains(err.Error(), lane) || !strings.Contains(err.Error(), "restore it from a copy") {
				t.Errorf("got %v, want ErrForeignData with the path and the way out", err)
			}
			if _, err := d.lane(1); err != nil {
				t.Errorf("a lane that was never here: %v", err)
			}
		})
	}
}

func TestADataDirectoryInUse(t *testing.T) {
	path := claimed(t)
	holder, err := openNow(t, path, "n1", "g")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openNow(t, path, "n1", "g"); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "pid ") {
		t.Errorf("got %v, want ErrInUse, who and where", err)
	}
	// A start waits for a predecessor that is about to end …
	got := make(chan error, 1)
	go func() {
		d, err := openDataDir(context.Background(), path, "n1", "g", turn{most: patience})
		if err == nil {
			d.close()
		}
		got <- err
	}()
	holder.close()
	if err := <-got; err != nil {
		t.Errorf("the successor got %v", err)
	}
	// … unless it is told to stop.
	if _, err = openNow(t, path, "n1", "g"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	told := errors.New("told")
	cancel(told)
	if _, err := openDataDir(ctx, path, "n1", "g", turn{most: time.Hour}); !errors.Is(err, told) {
		t.Errorf("told to stop while waiting: %v", err)
	}
}

func TestADataDirectoryThatCannotBeMade(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openNow(t, filepath.Join(file, "data"), "n1", "g"); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v, want an error with the path", err)
	}
	if os.Geteuid() == 0 {
		t.Log("skipped a directory without permissions: root may write everywhere")
		return
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	if _, err := openNow(t, dir, "n1", "g"); err == nil || !strings.Contains(err.Error(), "writable for the user") {
		t.Errorf("got %v, want a hint at permissions", err)
	}
}
