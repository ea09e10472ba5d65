package wal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/tidwall/wal"
)

// TestFailStop fails each operation of an append: that group is not
// acknowledged, nothing is retried, later stores return the first error, what was
// acknowledged is there after the next open, and work goes on.
func TestFailStop(t *testing.T) {
	cases := map[string]struct{ op, part string }{
		"sync of the segment":   {"sync", segmentsDir + "/"},
		"write of the mark":     {"write", markName},
		"sync of the directory": {"syncdir", segmentsDir},
		"write of the seal":     {"write", manifestName},
	}
	for name, c := range cases {
		for _, errno := range []error{syscall.EIO, syscall.ENOSPC} {
			t.Run(name+"/"+errno.Error(), func(t *testing.T) {
				cfg := testConfig(t.TempDir())
				files := newFailingFiles(c.op, c.part, errno)
				cfg.Files = files
				var reports []error
				cfg.OnFailure = func(err error) { reports = append(reports, err) }
				l := mustOpen(t, cfg)
				fill(t, l, 1, 30, 1, 300)
				acked, _ := l.LastIndex()
				files.armed.Store(true)
				// Large enough to end a segment, so that each operation is met.
				err := l.StoreLogs(testEntries(acked+1, acked+20, 1, 300))
				var failed *FailedError
				if !errors.As(err, &failed) || !errors.Is(err, errno) {
					t.Fatalf("got %v, want a FailedError of %v", err, errno)
				}
				files.armed.Store(false)
				if again := l.StoreLog(testEntry(acked+1, 1, 10)); !errors.Is(again, err) {
					t.Fatalf("a later store returned %v, not the first error", again)
				}
				if got := l.DeleteRange(1, 5); !errors.Is(got, err) {
					t.Fatalf("a later deletion returned %v, not the first error", got)
				}
				if len(reports) != 1 || !errors.Is(reports[0], err) || !errors.Is(l.Err(), err) {
					t.Fatalf("reported %v", reports)
				}
				select {
				case <-l.Failed():
				default:
					t.Fatal("Failed is not closed")
				}
				wantEntries(t, l, 1, acked, 1, 300)
				_ = l.Close() // closing a failed log may fail
				l = mustOpen(t, cfg)
				last, _ := l.LastIndex()
				if last < acked {
					t.Fatalf("acknowledged up to %d, log ends with %d", acked, last)
				}
				fill(t, l, last+1, last+30, 1, 300)
				wantEntries(t, l, 1, last+30, 1, 300)
			})
		}
	}
}

// TestPartialWriteIsNotRetried: a full disk takes a part of a write. The bare
// library, asked again, would acknowledge entries that read as others (hazard 5).
func TestPartialWriteIsNotRetried(t *testing.T) {
	cfg := testConfig(t.TempDir())
	l := mustOpen(t, cfg)
	fill(t, l, 1, 5, 1, 300)
	path := l.p.segment(1)
	frame, _ := appendFrame(nil, testEntry(6, 1, 300), syncMark{})
	l.lib = &failingLibrary{library: l.lib, path: path, part: append([]byte{0xec, 0x02}, frame[:200]...), err: syscall.ENOSPC}
	if err := l.StoreLog(testEntry(6, 1, 300)); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v", err)
	}
	if err := l.StoreLog(testEntry(6, 1, 300)); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("it was tried again: %v", err)
	}
	wantEntries(t, l, 1, 5, 1, 300)
	l.lib = l.lib.(*failingLibrary).library
	_ = l.Close() // closing a failed log may fail
	l = mustOpen(t, cfg)
	wantEntries(t, l, 1, 5, 1, 300)
	if l.Stats().TornBytes != 202 {
		t.Fatalf("cut %d bytes, want 202", l.Stats().TornBytes)
	}
}

// TestHungStoreIsReported: an operation of a store hangs; the watchdog says so from a goroutine
// of its own, and the group is not acknowledged even though the operation returns in the end.
func TestHungStoreIsReported(t *testing.T) {
	for name, c := range map[string]struct{ op, part string }{
		"sync of the segment":     {"sync", segmentsDir + "/"},
		"write of the mark":       {"write", markName},
		"sync of the directory":   {"syncdir", segmentsDir},
		"write to the manifest":   {"write", manifestName},
		"the library's own write": {"library", ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { hungStore(t, c.op, c.part) })
		})
	}
}

func hungStore(t *testing.T, op, part string) {
	hang := make(chan struct{})
	var once sync.Once
	armed := false
	before := func(got, name string) error {
		if armed && got == op && strings.Contains(name, part) {
			once.Do(func() { <-hang })
		}
		return nil
	}
	cfg := testConfig(t.TempDir())
	cfg.StallTimeout = 10 * time.Second
	reported := make(chan error, 1)
	cfg.OnFailure = func(err error) { reported <- err }
	cfg.Files = &hookedFiles{Files: osFiles{}, before: before}
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l.lib = hookedLibrary{l.lib, func() { _ = before("library", "") }}
	mustStore(t, l, testEntry(1, 1, 10))
	time.Sleep(time.Hour) // virtual: an idle log does not hang
	if l.Err() != nil {
		t.Fatalf("an idle log was taken for hung: %v", l.Err())
	}
	armed = true
	stored := make(chan error, 1)
	began := time.Now()
	// Large enough to end a segment, so that each operation is met.
	go func() { stored <- l.StoreLogs(testEntries(2, 20, 1, 300)) }()
	got := <-reported
	if !errors.Is(got, ErrStalled) || time.Since(began) != cfg.StallTimeout {
		t.Fatalf("after %v: %v", time.Since(began), got)
	}
	close(hang)
	if err := <-stored; !errors.Is(err, ErrStalled) {
		t.Fatalf("the hung store returned %v", err)
	}
	if last, _ := l.LastIndex(); last != 1 {
		t.Fatalf("a hung entry is visible: last is %d", last)
	}
	_ = l.Close() // closing a failed log may fail
}

// hungReads hang until they are let go.
type hungReads struct {
	osFiles
	hang atomic.Pointer[chan struct{}]
}

func (h *hungReads) Open(name string, flag int) (File, error) {
	f, err := h.osFiles.Open(name, flag)
	return hungFile{f, h}, err
}

type hungFile struct {
	File
	of *hungReads
}

func (f hungFile) ReadAt(b []byte, off int64) (int, error) {
	if hang := f.of.hang.Load(); hang != nil {
		<-*hang
	}
	return f.File.ReadAt(b, off)
}

// TestHungReadIsReported: with nothing to store, a reader alone meets the disk that hangs.
func TestHungReadIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := &hungReads{}
		cfg := testConfig(t.TempDir())
		cfg.StallTimeout, cfg.Files = 10*time.Second, files
		reported := make(chan error, 1)
		cfg.OnFailure = func(err error) { reported <- err }
		l, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		fill(t, l, 1, 40, 1, 300)
		var e raft.Log
		if err := l.GetLog(2, &e); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // virtual: a read that has ended does not hang
		if l.Err() != nil {
			t.Fatalf("an idle log was taken for hung: %v", l.Err())
		}
		hang := make(chan struct{})
		files.hang.Store(&hang)
		began := time.Now()
		read := make(chan error, 1)
		go func() { read <- l.GetLog(2, &e) }()
		if err := <-reported; !errors.Is(err, ErrStalled) || time.Since(began) != cfg.StallTimeout {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		close(hang)
		if err := <-read; err != nil {
			t.Errorf("the read returned %v", err)
		}
		if err := l.StoreLog(testEntry(41, 1, 10)); !errors.Is(err, ErrStalled) {
			t.Errorf("a later store returned %v", err)
		}
		_ = l.Close() // closing a failed log may fail
	})
}

// TestAStoppedProcessIsNoHungDisk: the clock went on while the process stood still, and the
// operation has returned, or does within a moment. One that goes on hanging is reported then.
func TestAStoppedProcessIsNoHungDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reports atomic.Int32
		w := &watchdog{}
		w.start(10*time.Second, func(time.Duration) { reports.Add(1) })
		stopped := func(hangs time.Duration) {
			w.begin()
			w.began.Store(time.Now().Add(-time.Minute).UnixNano())
			w.look()
			time.Sleep(hangs)
			w.end()
			time.Sleep(time.Hour)
		}
		stopped(0)
		stopped(900 * time.Millisecond)
		if reports.Load() > 0 {
			t.Error("a process that was stopped was taken for a hung disk")
		}
		stopped(1100 * time.Millisecond)
		if n := reports.Load(); n != 1 {
			t.Errorf("a disk that hangs on was reported %d times", n)
		}
	})
}

// hookedLibrary calls before in front of each write.
type hookedLibrary struct {
	library
	before func()
}

func (h hookedLibrary) WriteBatch(b *wal.Batch) error {
	h.before()
	return h.library.WriteBatch(b)
}

func TestDirectoryInUse(t *testing.T) {
	cfg := testConfig(t.TempDir())
	l := mustOpen(t, cfg)
	_, err := Open(cfg)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Fatalf("second open: %v", err)
	}
	mustClose(t, l)
	mustClose(t, mustOpen(t, cfg))
}

// TestHeldLockIsWaitedFor: a predecessor that was killed lets go a moment later.
func TestHeldLockIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(t.TempDir())
		held, err := lockDir(filepath.Join(cfg.Dir, lockName), 0)
		if err != nil {
			t.Fatal(err)
		}
		cfg.LockWait = 3 * time.Second
		began := time.Now()
		if _, err := Open(cfg); !errors.Is(err, ErrInUse) || time.Since(began) < cfg.LockWait || time.Since(began) > 2*cfg.LockWait {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
		time.AfterFunc(time.Second, func() { held.Close() })
		l, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		mustClose(t, l)
	})
}
