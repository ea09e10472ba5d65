package torture

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"forebay/internal/faultfs"
	"forebay/wal"
)

func sortedKinds() []string { return slices.Sorted(maps.Keys(damages)) }

// TestDamagedLogs damages logs in every way: never a panic, never a wrong entry;
// where anything acknowledged is touched it is said, with the place, by open or by
// the read that meets it, and by verify.
func TestDamagedLogs(t *testing.T) {
	share := budget(t, 12)
	if os.Getenv("FOREBAY_E2E") == "" {
		share = time.Second // needs Go alone
	}
	deadline := time.Now().Add(share)
	first := firstSeed(t)
	root := memoryDir(t)
	count := &tally{kinds: map[string]int{}}
	var base string
	var c walClaim
	for seed := first; time.Now().Before(deadline) && !t.Failed(); seed++ {
		if (seed-first)%200 == 0 {
			base, c = plainLog(t, filepath.Join(root, fmt.Sprint("log-", seed)), seed)
		}
		dir := filepath.Join(root, "damaged")
		if err := os.CopyFS(dir, os.DirFS(base)); err != nil {
			t.Fatal(err)
		}
		kind, what, err := inflict(rand.New(rand.NewPCG(seed, 11)), filepath.Join(dir, "log"))
		if err != nil {
			t.Fatal(err)
		}
		outcome, err := judgeDamage(dir, &c)
		if err != nil {
			t.Errorf("seed %d (log of seed %d), %s: %v", seed, seed-(seed-first)%200, what, err)
		}
		count.count(kind, map[string]*int{"refused": &count.refused, "read": &count.read, "harmless": &count.harmless, "": new(int)}[outcome])
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	if !t.Failed() {
		count.print(t, "log")
	}
}

// plainLog has the workload make a log in an ordinary directory, and returns the last claim. The log of
// the first seed is taken that has something to damage.
func plainLog(t *testing.T, dir string, seed uint64) (string, walClaim) {
	t.Helper()
	for ; ; seed += 1 << 20 {
		c := makeLog(t, dir, seed)
		if c.Least > c.First+25 {
			return dir, c
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}

func makeLog(t *testing.T, dir string, seed uint64) walClaim {
	t.Helper()
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	if err := walWorkload(dir, seed, &claims{w: &said}); err != nil {
		t.Fatal(err)
	}
	var c walClaim
	for d := json.NewDecoder(&said); d.More(); {
		c = walClaim{}
		if err := d.Decode(&c); err != nil {
			t.Fatal(err)
		}
	}
	c.Most = c.Least
	return c
}

// judgeDamage opens a damaged log and reads all of it.
func judgeDamage(dir string, c *walClaim) (string, error) {
	cfg := walConfig(dir, c)
	before, err := contents(cfg.Dir)
	if err != nil {
		return "", err
	}
	listed, err := offline(cfg.Dir, c)
	if err != nil {
		return "", fmt.Errorf("offline: %w", err)
	}
	l, err := wal.Open(cfg)
	if err != nil {
		if err := saysDamage(err, cfg.Dir); err != nil {
			return "", err
		}
		after, err := contents(cfg.Dir)
		if err == nil && !maps.Equal(before, after) {
			err = errors.New("refusing to open changed the directory")
		}
		return "refused", err
	}
	defer func() { _ = l.Close() }() // a log that met damage has failed
	first, last, err := readAround(l, c)
	if err != nil {
		if !listed {
			return "", fmt.Errorf("verify did not list what reading met: %w", err)
		}
		return "read", saysDamage(err, cfg.Dir)
	}
	end := last
	if last == 0 {
		end = c.Snap
	}
	if end != c.Least || last > 0 && first > c.First {
		return "", fmt.Errorf("entries are lost in silence: the log holds %d to %d, claimed was %+v", first, last, *c)
	}
	return "harmless", nil
}

// errWrong is a wrong entry that was returned as a right one.
var errWrong = errors.New("wrong entry")

// readAround reads every entry of an open log, on beyond bad ones, and returns the first error.
func readAround(l *wal.Log, c *walClaim) (first, last uint64, err error) {
	if first, err = l.FirstIndex(); err != nil {
		return 0, 0, err
	}
	if last, err = l.LastIndex(); err != nil {
		return 0, 0, err
	}
	for i := first; i <= last && last > 0; i++ {
		var got raft.Log
		switch failed := l.GetLog(i, &got); {
		case failed != nil && err == nil:
			err = failed
		case failed == nil:
			if same := sameEntry(i, got.Term, got.Data, c); same != nil {
				return 0, 0, same
			}
		}
	}
	return first, last, err
}

func sameEntry(i, term uint64, data []byte, c *walClaim) error {
	if want := entry(i, c.term(i)); i >= c.First && (term != want.Term || !bytes.Equal(data, want.Data)) {
		return fmt.Errorf("%w: %d of term %d with %d bytes, want term %d with %d", errWrong, i, term, len(data), want.Term, len(want.Data))
	}
	return nil
}

// offline verifies the log and reads it as the tools do, and tells whether damage was listed.
func offline(dir string, c *walClaim) (bool, error) {
	r, err := wal.Inspect(dir)
	if err != nil {
		return true, saysDamage(err, dir)
	}
	report, err := r.Verify(nil)
	if err != nil {
		return true, saysDamage(err, dir)
	}
	for e, err := range r.Entries(1) {
		if err != nil {
			break
		}
		if err := sameEntry(e.Index, e.Term, e.Data, c); err != nil {
			return false, err
		}
	}
	return len(report.Damage) > 0, nil
}

// saysDamage requires an error that tells the place, what is wrong, and the way out.
func saysDamage(err error, dir string) error {
	if errors.Is(err, errWrong) {
		return err
	}
	var newer *wal.VersionError
	if errors.As(err, &newer) {
		return nil
	}
	var bad *wal.CorruptError
	if !errors.As(err, &bad) {
		return fmt.Errorf("neither a CorruptError nor a VersionError: %w", err)
	}
	for _, part := range []string{dir, "expected", "found", "forebay wal verify"} {
		if !strings.Contains(err.Error(), part) {
			return fmt.Errorf("the error does not say %q: %w", part, err)
		}
	}
	return nil
}

// contents reads all files but the lock.
func contents(dir string) (map[string]string, error) {
	files, err := filesOf(dir)
	all := map[string]string{}
	for _, name := range files {
		b, readErr := os.ReadFile(filepath.Join(dir, name))
		err = errors.Join(err, readErr)
		all[name] = string(b)
	}
	return all, err
}

// TestUnreadableSectors has reads of each file fail, at any place: that is damage too, said by whoever
// meets it, and never an entry.
func TestUnreadableSectors(t *testing.T) {
	needsE2E(t)
	seed := firstSeed(t)
	backing, c := plainLog(t, filepath.Join(t.TempDir(), "log"), seed)
	fs, err := faultfs.Mount(backing, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := fs.Close(); err != nil {
			t.Error(err)
		}
	}()
	cfg := walConfig(fs.Dir(), &c)
	files, err := filesOf(cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	met, tried := 0, 0
	for _, name := range files {
		info, err := os.Stat(filepath.Join(cfg.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for at := int64(0); at < info.Size(); at += 512 {
			rule, err := fs.Inject(faultfs.Rule{Path: "/log/" + name, Op: faultfs.OpRead, Off: at, Len: 512})
			if err != nil {
				t.Fatal(err)
			}
			l, err := wal.Open(cfg)
			if err == nil {
				_, _, err = readAround(l, &c)
				_ = l.Close() // as above
			}
			rule.Remove()
			tried++
			if rule.Hits() > 0 {
				met++
			}
			switch {
			case errors.Is(err, errWrong):
				t.Errorf("%s at %d: %v", name, at, err)
			case (err != nil) != (rule.Hits() > 0):
				t.Errorf("%s at %d: %d reads failed, and %v", name, at, rule.Hits(), err)
			case err != nil && !strings.Contains(err.Error(), filepath.Base(name)):
				t.Errorf("%s at %d: the error does not name the file: %v", name, at, err)
			}
		}
	}
	t.Logf("%d unreadable sectors tried, %d met", tried, met)
	if met < 20 {
		t.Error("too few were met")
	}
}
