package wal

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
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

// TestReadHead: a command comes without its data, everything else whole, and a header that is
// damaged is found.
func TestReadHead(t *testing.T) {
	cfg := testConfig(t.TempDir())
	l := mustOpen(t, cfg)
	fill(t, l, 1, 30, 1, 200)
	conf := testEntry(31, 2, 300)
	conf.Type, conf.Extensions = raft.LogConfiguration, []byte("more")
	mustStore(t, l, conf)
	fill(t, l, 32, 60, 2, 200)
	for index := uint64(1); index <= 60; index++ {
		var whole, head raft.Log
		if err := errors.Join(l.GetLog(index, &whole), l.ReadHead(index, &head)); err != nil {
			t.Fatal(err)
		}
		if index != 31 {
			whole.Data = nil
		}
		if err := sameEntry(&head, &whole); err != nil {
			t.Error(err)
		}
	}
	var e raft.Log
	if err := l.ReadHead(61, &e); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("entry 61 gave %v", err)
	}
	rot := []byte{0xff}
	f := l.active.file
	if _, err := f.WriteAt(rot, int64(l.active.offsets[0])+20); err != nil {
		t.Fatal(err)
	}
	var damage *CorruptError
	if err := l.ReadHead(l.active.first, &e); !errors.As(err, &damage) || l.Err() == nil {
		t.Errorf("a damaged header gave %v, and the log %v", err, l.Err())
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
