package replicate

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

// TestFlippedTermAndVote: a flipped bit anywhere among the keys and values is found, or changes
// nothing of what they say.
func TestFlippedTermAndVote(t *testing.T) {
	dir := t.TempDir()
	s, err := openStable(dir, owner{"n1", "g", 0})
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]string{"CurrentTerm": "\x00\x00\x00\x00\x00\x00\x00\x08", "LastVoteTerm": "\x00\x00\x00\x00\x00\x00\x00\x08", "LastVoteCand": "n1"}
	for key, val := range keys {
		if err := s.Set([]byte(key), []byte(val)); err != nil {
			t.Fatal(err)
		}
	}
	closeStable(t, s)
	path := filepath.Join(dir, stableName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for key := range keys {
		from := 0
		for {
			at := bytes.Index(whole[from:], []byte(key))
			if at < 0 {
				break
			}
			from += at + 1
			for i := from - 1; i < from+len(key)+12; i++ {
				b := bytes.Clone(whole)
				b[i] ^= 1 << (i % 8)
				if err := os.WriteFile(path, b, 0o600); err != nil {
					t.Fatal(err)
				}
				if _, err := checkStable(path, time.Second); err != nil {
					found++
					continue
				}
				s, err := openStable(dir, owner{"n1", "g", 0})
				if err != nil {
					t.Fatal(err)
				}
				for key, want := range keys {
					if got, err := s.Get([]byte(key)); err != nil || string(got) != want {
						t.Errorf("bit %d of byte %d: %s is %x, %v", i%8, i, key, got, err)
					}
				}
				closeStable(t, s)
			}
		}
	}
	if found < 3*8 {
		t.Errorf("only %d flipped bits were found", found)
	}
}
