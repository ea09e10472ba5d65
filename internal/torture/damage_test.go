package torture

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// damage is one thing that can happen to a directory at rest. It returns what it did, "" if there was nothing
// to do it to.
type damage func(rng *rand.Rand, dir string, files []string) (string, error)

// damages are all kinds, by name.
var damages = map[string]damage{
	"flip":      inPlace(func(rng *rand.Rand, b []byte) []byte { b[rng.IntN(len(b))] ^= 1 << rng.IntN(8); return b }),
	"zero":      inPlace(zeroed),
	"noise":     inPlace(noisy),
	"cut":       inPlace(func(rng *rand.Rand, b []byte) []byte { return b[:rng.IntN(len(b))] }),
	"zeros on":  inPlace(func(rng *rand.Rand, b []byte) []byte { return append(b, make([]byte, rng.IntN(5000)+1)...) }),
	"noise on":  inPlace(func(rng *rand.Rand, b []byte) []byte { return append(b, noise(rng, rng.IntN(5000)+1)...) }),
	"repeat":    inPlace(func(rng *rand.Rand, b []byte) []byte { return append(b, b[rng.IntN(len(b)):]...) }),
	"remove":    removed,
	"swap":      swapped,
	"duplicate": duplicated,
	"foreign":   foreign,
}

// inPlace changes what one file holds.
func inPlace(change func(rng *rand.Rand, b []byte) []byte) damage {
	return func(rng *rand.Rand, dir string, files []string) (string, error) {
		name := files[rng.IntN(len(files))]
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || len(b) == 0 {
			return "", err
		}
		changed := change(rng, bytes.Clone(b))
		if bytes.Equal(b, changed) {
			return "", nil
		}
		at := 0
		for at < min(len(b), len(changed)) && b[at] == changed[at] {
			at++
		}
		return fmt.Sprintf("%s from byte %d of %d", name, at, len(b)), os.WriteFile(filepath.Join(dir, name), changed, 0o640)
	}
}

// place is a random range, often of whole sectors.
func place(rng *rand.Rand, b []byte) []byte {
	from := rng.IntN(len(b))
	n := rng.IntN(100) + 1
	if rng.IntN(2) == 0 {
		from, n = from/512*512, 512*(rng.IntN(8)+1)
	}
	return b[from:min(from+n, len(b))]
}

func zeroed(rng *rand.Rand, b []byte) []byte {
	clear(place(rng, b))
	return b
}

func noisy(rng *rand.Rand, b []byte) []byte {
	at := place(rng, b)
	copy(at, noise(rng, len(at)))
	return b
}

func noise(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func removed(rng *rand.Rand, dir string, files []string) (string, error) {
	name := files[rng.IntN(len(files))]
	return name, os.Remove(filepath.Join(dir, name))
}

func swapped(rng *rand.Rand, dir string, files []string) (string, error) {
	one, other := files[rng.IntN(len(files))], files[rng.IntN(len(files))]
	a, err := os.ReadFile(filepath.Join(dir, one))
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(filepath.Join(dir, other))
	if err != nil || bytes.Equal(a, b) {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, one), b, 0o640); err != nil {
		return "", err
	}
	return one + " and " + other, os.WriteFile(filepath.Join(dir, other), a, 0o640)
}

// duplicated copies a file to a name like those beside it.
func duplicated(rng *rand.Rand, dir string, files []string) (string, error) {
	from := files[rng.IntN(len(files))]
	to := filepath.Join(filepath.Dir(from), fmt.Sprintf("%020d", rng.Uint64N(200)))
	if _, err := os.Stat(filepath.Join(dir, to)); err == nil {
		return "", nil
	}
	b, err := os.ReadFile(filepath.Join(dir, from))
	if err != nil {
		return "", err
	}
	return from + " as " + to, os.WriteFile(filepath.Join(dir, to), b, 0o640)
}

func foreign(rng *rand.Rand, dir string, files []string) (string, error) {
	name := filepath.Join(filepath.Dir(files[rng.IntN(len(files))]), []string{"core", ".swp", "00000000000000000012.bak", "12"}[rng.IntN(4)])
	return name, os.WriteFile(filepath.Join(dir, name), noise(rng, 100), 0o640)
}

// filesOf lists the files below dir that damage is done to.
func filesOf(dir string) (files []string, err error) {
	err = filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == "lock" {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		files = append(files, rel)
		return err
	})
	return files, err
}

// inflict does one damage to dir, and tells what.
func inflict(rng *rand.Rand, dir string) (kind, what string, err error) {
	names := sortedKinds()
	for what == "" && err == nil {
		var files []string
		if files, err = filesOf(dir); err != nil {
			return "", "", err
		}
		kind = names[rng.IntN(len(names))]
		what, err = damages[kind](rng, dir, files)
	}
	return kind, kind + " " + what, err
}

// tally counts damages by kind and by what came of them.
type tally struct {
	total, refused, read, harmless int
	kinds                          map[string]int
}

func (c *tally) count(kind string, n *int) {
	c.total++
	c.kinds[kind]++
	*n++
}

func (c *tally) print(t *testing.T, what string) {
	t.Helper()
	t.Logf("%s: %d damages tried: %d refused at open, %d found by reading, %d of nothing that was acknowledged; %v",
		what, c.total, c.refused, c.read, c.harmless, c.kinds)
	for kind := range damages {
		if c.kinds[kind] == 0 && c.total > 300 { // fewer may miss one by chance
			t.Errorf("no damage of kind %q", kind)
		}
	}
}
