package sqlite

import (
	"os"
	"path/filepath"
	"testing"
)

// TestDestinationIsTheSameBeforeAndAfterTheFileIsMade: an exactly-once sink must
// keep its destination, also when its path is a link to a file not yet there.
func TestDestinationIsTheSameBeforeAndAfterTheFileIsMade(t *testing.T) {
	dir := t.TempDir()
	volume := filepath.Join(dir, "volume")
	if err := os.Mkdir(volume, 0o750); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"plain": "", "link": filepath.Join(volume, "link.db"), "relative link": filepath.Join("volume", "relative.db"),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name)
			if target != "" {
				if err := os.Symlink(target, path); err != nil {
					t.Fatal(err)
				}
			}
			s, err := New(Config{Path: path, Table: "t", Create: true})
			if err != nil {
				t.Fatal(err)
			}
			before := s.Destination()
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if after := s.Destination(); after != before {
				t.Errorf("the destination was %s and is %s", before, after)
			}
		})
	}
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Path: loop, Table: "t"})
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Destination() // ends
}
