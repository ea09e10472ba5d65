package wal

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestReadLogUsesItsBuffer: entries from disk come in the caller's buffer, those from
// memory do not, and neither is written over by the reading of the other.
func TestReadLogUsesItsBuffer(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.RingBytes = 3 * (200 + entryOverhead) // the last three
	l := mustOpen(t, cfg)
	fill(t, l, 1, 100, 1, 200)
	var first, second, hot raft.Log
	var buf []byte
	read := func(index uint64, out *raft.Log) {
		t.Helper()
		if err := l.ReadLog(index, out, &buf); err != nil {
			t.Fatal(err)
		}
		if err := sameEntry(out, testEntry(index, 1, 200)); err != nil {
			t.Fatal(err)
		}
	}
	read(1, &first)
	kept := bytes.Clone(first.Data)
	read(100, &hot)
	if !bytes.Equal(first.Data, kept) {
		t.Error("reading from memory wrote over the buffer")
	}
	read(2, &second)
	if &first.Data[0] != &second.Data[0] {
		t.Error("a buffer that is large enough was not used again")
	}
	if err := sameEntry(&hot, testEntry(100, 1, 200)); err != nil {
		t.Errorf("reading from disk wrote over an entry in memory: %v", err)
	}
}

// TestReadStart: what Open found after the snapshot comes from memory, of commands as much as is kept;
// everything else comes whole, and nothing of what was cut off since.
func TestReadStart(t *testing.T) {
	cfg := testConfig(t.TempDir())
	l := mustOpen(t, cfg)
	fill(t, l, 1, 30, 1, 200)
	conf := testEntry(31, 2, 300)
	conf.Type, conf.Extensions = raft.LogConfiguration, []byte("more")
	mustStore(t, l, conf)
	fill(t, l, 32, 60, 2, 200)
	mustClose(t, l)
	cfg.SnapshotIndex, cfg.SnapshotTerm = 20, 1
	cfg.KeepStart = func(data []byte) int { return 5 }
	l = mustOpen(t, cfg)
	for index := uint64(21); index <= 60; index++ {
		term := uint64(2)
		if index <= 30 {
			term = 1
		}
		want, got := *testEntry(index, term, 200), raft.Log{}
		want.Data = want.Data[:5]
		if index == 31 {
			want = *conf
		}
		if err := errors.Join(l.ReadStart(index, &got), sameEntry(&got, &want)); err != nil {
			t.Error(err)
		}
	}
	if n := testutil.ToFloat64(l.metrics.coldReads); n != 0 {
		t.Errorf("%v reads of the disk", n)
	}
	whole := func(index, term uint64) {
		t.Helper()
		var got raft.Log
		if err := errors.Join(l.ReadStart(index, &got), sameEntry(&got, testEntry(index, term, 200))); err != nil {
			t.Error(err)
		}
	}
	whole(20, 1)
	if err := l.DeleteRange(50, 60); err != nil {
		t.Fatal(err)
	}
	fill(t, l, 50, 55, 3, 200)
	whole(50, 3)
	whole(49, 2)
	var e raft.Log
	if err := l.ReadStart(60, &e); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("an entry that was cut off gave %v", err)
	}
}

// TestStartsAreBounded: what does not fit is read from the log, whole.
func TestStartsAreBounded(t *testing.T) {
	s := starts{}
	keep := func(data []byte) int { return len(data) }
	body := make([]byte, 1<<20)
	for index := uint64(1); index <= 40; index++ {
		s.add(header{index: index, kind: raft.LogCommand}, body, keep)
	}
	var e raft.Log
	if !s.get(31, &e) || s.get(32, &e) {
		t.Errorf("%d entries of 1 MiB are kept in %d bytes", len(s.list), maxStarts)
	}
	s.forget()
	if s.get(1, &e) {
		t.Error("a forgotten entry is there")
	}
}

// TestManyColdReaders: more readers than may read at a time come by and by, whatever ends their reads.
func TestManyColdReaders(t *testing.T) {
	l := mustOpen(t, testConfig(t.TempDir()))
	fill(t, l, 1, 200, 1, 100)
	var readers sync.WaitGroup
	for from := range uint64(16) {
		readers.Go(func() {
			var e raft.Log
			var buf []byte
			for i := uint64(1); i <= 200; i++ {
				index := 1 + (i+from*12)%200
				err := l.ReadLog(index, &e, &buf)
				if err == nil {
					err = sameEntry(&e, testEntry(index, 1, 100))
				}
				if err != nil {
					t.Error(err)
					return
				}
				if err := l.ReadLog(201, &e, &buf); !errors.Is(err, raft.ErrLogNotFound) {
					t.Errorf("entry 201 gave %v", err)
					return
				}
			}
		})
	}
	readers.Wait()
}
