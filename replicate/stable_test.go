package replicate

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

var testOwner = owner{node: "n1", gateway: "forebay", lane: 2}

func closeStable(t *testing.T, s *stableStore) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestStableStore(t *testing.T) {
	dir := t.TempDir()
	s, err := openStable(dir, testOwner)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := s.Get([]byte("missing")); v != nil || err != nil {
		t.Errorf("missing key: %q, %v", v, err)
	}
	if v, err := s.GetUint64([]byte("missing")); v != 0 || err != nil {
		t.Errorf("missing number: %d, %v", v, err)
	}
	if err := errors.Join(s.Set([]byte("k"), []byte("v")), s.SetUint64([]byte("n"), 1<<63), s.Set([]byte("n2"), []byte("v"))); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err = openStable(dir, testOwner)
	if err != nil {
		t.Fatal(err)
	}
	defer closeStable(t, s)
	if v, err := s.Get([]byte("k")); string(v) != "v" || err != nil {
		t.Errorf("k is %q, %v", v, err)
	}
	if v, err := s.GetUint64([]byte("n")); v != 1<<63 || err != nil {
		t.Errorf("n is %d, %v", v, err)
	}
	if _, err := s.GetUint64([]byte("n2")); err == nil {
		t.Error("a number of one byte was read")
	}
}

func TestForeignDirectoryIsRefused(t *testing.T) {
	dir := t.TempDir()
	s, err := openStable(dir, testOwner)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openStable(dir, testOwner); !errors.Is(err, ErrInUse) {
		t.Errorf("a second open gives %v", err)
	}
	closeStable(t, s)
	for name, other := range map[string]owner{
		"node": {"n2", "forebay", 2}, "gateway": {"n1", "other", 2}, "lane": {"n1", "forebay", 3},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := openStable(dir, other); !errors.Is(err, ErrForeign) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func TestCrashWhileStableStoreIsMade(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, stableName+tempSuffix), make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := openStable(dir, testOwner)
	if err != nil {
		t.Fatal(err)
	}
	closeStable(t, s)
}
