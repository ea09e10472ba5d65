package replicate

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDamagedTermAndVote: a lane whose stable.db is gone, emptied, cut, older than the log or
// full of noise is not opened, and nothing is changed. (Raft would else begin with term 0 and vote again;
// bbolt would panic, or fault on a page that is not there.)
func TestDamagedTermAndVote(t *testing.T) {
	store := newMemStore()
	cfg := testConfig(t, t.TempDir(), store)
	path := filepath.Join(cfg.Dir, stableName)
	start(t, cfg).stop()
	older, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	l := start(t, cfg)
	l.bases("a")
	l.mustAppend(seal(t, "a", 0, 1, 10))
	l.stop()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string][]byte{
		"gone": nil, "empty": {}, "cut in its first page": whole[:100], "cut behind its first pages": whole[:3*4096],
		"from before the last term": older,
		"noise behind its first pages": append(append([]byte(nil), whole[:2*4096]...),
			[]byte(strings.Repeat("noise", (len(whole)-2*4096)/5))...),
	}
	for name, b := range cases {
		t.Run(name, func(t *testing.T) {
			err := os.Remove(path)
			if b != nil {
				err = os.WriteFile(path, b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := os.WriteFile(path, whole, 0o600); err != nil {
					t.Fatal(err)
				}
			})
			l, err := Open(cfg)
			if err == nil {
				t.Fatal("opened", l.Close(t.Context()))
			}
			var bad *StableError
			if !errors.As(err, &bad) || bad.Path != path || !strings.Contains(err.Error(), "`forebay wal verify`") {
				t.Fatalf("got %v", err)
			}
			after, err := os.ReadFile(path)
			if string(after) != string(b) || b == nil && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the file was changed: %d bytes, then %d, %v", len(b), len(after), err)
			}
		})
	}
	start(t, cfg)
}
