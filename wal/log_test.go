package wal

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"
)

func TestStoredEntriesComeBack(t *testing.T) {
	for _, ring := range []int64{-1, 1 << 20} {
		dir := t.TempDir()
		cfg := testConfig(dir)
		cfg.RingBytes = ring
		l := mustOpen(t, cfg)
		wantEntries(t, l, 0, 0, 1, 0)
		fill(t, l, 1, 100, 1, 500)
		wantEntries(t, l, 1, 100, 1, 500)
		mustClose(t, l)
		l = mustOpen(t, cfg)
		wantEntries(t, l, 1, 100, 1, 500)
		fill(t, l, 101, 200, 1, 500)
		wantEntries(t, l, 1, 200, 1, 500)
		var e raft.Log
		if err := l.GetLog(201, &e); !errors.Is(err, raft.ErrLogNotFound) {
			t.Fatalf("GetLog beyond the end: %v", err)
		}
		if st := l.Stats(); st.Segments < 20 || st.Bytes < 100_000 {
			t.Fatalf("stats: %+v", st)
		}
	}
}
