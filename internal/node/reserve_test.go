package node

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestTheReserve(t *testing.T) {
	const size = reserveBytes
	broken := errors.New("no answer")
	for _, c := range []struct {
		name                 string
		before               int64 // the file's size; -1: not there
		free                 int64
		err                  error
		given, taken, failed bool
		after                int64
	}{
		{"made where there is room", -1, 2 * size, nil, false, true, false, size},
		{"not made where it would bring about what it is for", -1, 2*size - 1, nil, false, false, false, -1},
		{"kept while there is room", size, size, nil, false, true, false, size},
		{"given back when the disk is nearly full", size, size - 1, nil, true, false, false, -1},
		{"nothing to give", -1, 0, nil, false, false, false, -1},
		{"a half-made one is completed", 5, 3 * size, nil, false, true, false, size},
		{"a disk that does not answer", -1, 0, broken, false, false, true, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "reserve")
			if c.before >= 0 {
				if err := os.WriteFile(path, make([]byte, c.before), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var asked string
			r := newReserve(dir, func(path string) (int64, error) { asked = path; return c.free, c.err })
			given, err1 := r.give()
			taken := false
			var err2 error
			if !given {
				taken, err2 = r.take()
			}
			if asked != dir {
				t.Errorf("the free space of %s was asked for", asked)
			}
			if given != c.given || taken != c.taken || (err1 != nil || err2 != nil) != c.failed {
				t.Errorf("given %v (%v), taken %v (%v)", given, err1, taken, err2)
			}
			after := int64(-1)
			if info, err := os.Stat(path); err == nil {
				after = info.Size()
			}
			if after != c.after {
				t.Errorf("the file has %d bytes, want %d", after, c.after)
			}
		})
	}
}

func TestTheReserveTakesRealSpace(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "filled"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := fill(f); err != nil {
		t.Fatal(err)
	}
	if info, err := f.Stat(); err != nil || info.Size() != reserveBytes {
		t.Errorf("filled to %d bytes (%v), want %d", info.Size(), err, reserveBytes)
	}
	if free, err := freeBytes(dir); err != nil || free <= 0 {
		t.Errorf("free space %d, %v", free, err)
	}
	if _, err := freeBytes(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("the free space of nowhere was told")
	}
}
