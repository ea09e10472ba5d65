package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
)

// faultyFiles fails changes that pass the file layer: the n-th one, or each by chance. A write that
// fails has been done by half.
type faultyFiles struct {
	quickFiles
	fails func() error // asked in front of each change, by whoever makes it
}

func (f *faultyFiles) Open(name string, flag int) (File, error) {
	if flag&syscall.O_CREAT != 0 {
		if err := f.fails(); err != nil {
			return nil, err
		}
	}
	file, err := f.quickFiles.Open(name, flag)
	if err != nil {
		return nil, err
	}
	return &faultyFile{file, f}, nil
}

func (f *faultyFiles) Rename(from, to string) error {
	return errors.Join(f.fails(), f.quickFiles.Rename(from, to))
}

func (f *faultyFiles) Remove(name string) error {
	if err := f.fails(); err != nil {
		return err
	}
	return f.quickFiles.Remove(name)
}

func (f *faultyFiles) SyncDir(string) error { return f.fails() }

type faultyFile struct {
	File
	of *faultyFiles
}

func (f *faultyFile) WriteAt(b []byte, off int64) (int, error) {
	if err := f.of.fails(); err != nil {
		n, werr := f.File.WriteAt(b[:len(b)/2], off)
		return n, errors.Join(err, werr)
	}
	return f.File.WriteAt(b, off)
}

func (f *faultyFile) Sync() error { return f.of.fails() }

func (f *faultyFile) Truncate(size int64) error {
	if err := f.of.fails(); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

// life is a log in use over its openings, and what it has acknowledged.
type life struct {
	t   *testing.T
	cfg Config
	// last is the newest entry acknowledged, floor the oldest that must be there.
	floor, last uint64
}

// step is one change; ok tells that it was acknowledged.
func (v *life) steps(l *Log) []func() error {
	return []func() error{
		func() error { return v.store(l, 40, 1) },
		func() error { return v.store(l, 5, 1) },
		func() error {
			v.compact(l, 20)
			if err := l.trim(); err != nil {
				return l.fail("trimming", l.p.dir, err) // as the log's own goroutine does
			}
			return l.Err()
		},
		func() error {
			end := v.last
			v.last -= min(3, v.last) // what the cut takes need not be there any more, whether it comes through or not
			return l.DeleteRange(v.last+1, end)
		},
		func() error { return v.store(l, 30, 1) },
		func() error { return v.store(l, 1, 1) },
	}
}

// compact lets all but the newest keep entries go, after a snapshot.
func (v *life) compact(l *Log, keep uint64) {
	if v.last <= keep {
		return
	}
	v.floor = max(v.floor, v.last-keep)
	v.cfg.SnapshotIndex, v.cfg.SnapshotTerm, v.cfg.SnapshotTaken = v.floor, 1, true
	l.SetApplied(v.last - 5)
	l.SetFloor(v.floor)
	_ = l.DeleteRange(1, v.floor-1) // a failed log says so at the next store
}

func (v *life) store(l *Log, n, term uint64) error {
	err := l.StoreLogs(testEntries(v.last+1, v.last+n, term, 300))
	if err == nil {
		v.last += n
	}
	return err
}

// check holds the open log against what was acknowledged.
func (v *life) check(l *Log, what string) {
	v.t.Helper()
	first, _ := l.FirstIndex()
	last, _ := l.LastIndex()
	if v.last > 0 && (last < v.last || first > max(v.floor, 1)) {
		v.t.Fatalf("%s: the log holds %d to %d, acknowledged are %d to %d", what, first, last, v.floor, v.last)
	}
	for i := first; i <= last && last > 0; i++ {
		var e raft.Log
		if err := l.GetLog(i, &e); err != nil {
			v.t.Fatalf("%s: entry %d: %v", what, i, err)
		}
		if err := sameEntry(&e, testEntry(i, 1, 300)); err != nil {
			v.t.Fatalf("%s: %v", what, err)
		}
	}
	v.last = last // what is there was never acknowledged, but may stay: the log goes on after it
}

// TestFailStopAtEachOperation: whichever change on disk fails, once, writes done by half: nothing
// that failed is acknowledged, nothing is tried again, and the next open has all that was
// acknowledged, also when an operation of that open fails.
func TestFailStopAtEachOperation(t *testing.T) {
	failures := 0
	for n := int64(1); ; n++ {
		var count atomic.Int64
		cfg := testConfig(t.TempDir())
		cfg.Files = &faultyFiles{fails: func() error {
			if count.Add(1) == n {
				return syscall.EIO
			}
			return nil
		}}
		v := &life{t: t, cfg: cfg}
		what := fmt.Sprintf("operation %d", n)
		l, err := Open(cfg)
		if err == nil {
			err = v.run(l, what)
		} else if !errors.Is(err, syscall.EIO) {
			t.Fatalf("%s: %v", what, err)
		}
		if err != nil {
			failures++
		}
		met := count.Load() >= n
		if met && err == nil {
			t.Fatalf("%s failed, and nobody was told", what)
		}
		for again := int64(1); ; again++ { // the next open, whose own operations fail in turn
			count.Store(n - again)
			l, err := Open(v.cfg)
			if err == nil {
				if count.Load() >= n {
					t.Fatalf("%s: operation %d of the next open failed, and nobody was told", what, again)
				}
				count.Store(n)
				v.check(l, what)
				if err := v.store(l, 10, 1); err != nil {
					t.Fatalf("%s: the next start does not go on: %v", what, err)
				}
				v.check(l, what)
				mustClose(t, l)
				break
			}
			var damage *CorruptError
			if !errors.Is(err, syscall.EIO) || errors.As(err, &damage) {
				t.Fatalf("%s, then operation %d of the open: %v", what, again, err)
			}
			failures++
		}
		if !met {
			break
		}
	}
	t.Logf("%d failures", failures)
	if failures < 100 {
		t.Errorf("only %d failures: the changes did not pass the file layer", failures)
	}
}

// run does all steps. After the first that fails none may come through.
func (v *life) run(l *Log, what string) error {
	defer func() { _ = l.Close() }() // closing a failed log may fail
	var first error
	for i, step := range v.steps(l) {
		last, before := v.last, l.Stats()
		err := step()
		if first == nil {
			first = err
			continue
		}
		if now := l.Stats(); v.last > last || now.Last != before.Last || err != nil && !errors.Is(err, l.Err()) {
			v.t.Fatalf("%s: step %d gave %v after %v", what, i, err, first)
		}
	}
	return first
}

// TestFailStopAtRandomUnderLoad: a writer, a trimmer and cold readers on a disk that fails now
// and then, over many openings of one directory.
func TestFailStopAtRandomUnderLoad(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed, 0))
	chance := func(n int) bool {
		mu.Lock()
		defer mu.Unlock()
		return random.IntN(n) == 0
	}
	cfg := testConfig(t.TempDir())
	cfg.Files = &faultyFiles{fails: func() error {
		if chance(150) {
			return syscall.ENOSPC
		}
		return nil
	}}
	v := &life{t: t, cfg: cfg}
	failed := 0
	for round := 0; round < 25; round++ {
		l, err := Open(v.cfg)
		if err != nil {
			var damage *CorruptError
			if !errors.Is(err, syscall.ENOSPC) || errors.As(err, &damage) {
				t.Fatalf("round %d: %v", round, err)
			}
			failed++
			continue
		}
		v.check(l, fmt.Sprint("round ", round))
		v.load(l)
		if l.Err() != nil {
			failed++
		}
		_ = l.Close() // closing a failed log may fail
	}
	if failed < 5 {
		t.Errorf("only %d of 25 rounds failed", failed)
	}
}

// load writes until the log fails, or for a while, with two readers beside it.
func (v *life) load(l *Log) {
	ended := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
				}
				first, _ := l.FirstIndex()
				last, _ := l.LastIndex()
				if last == 0 {
					continue
				}
				var e raft.Log
				i := first + rand.Uint64N(last-first+1)
				err := l.GetLog(i, &e)
				if errors.Is(err, raft.ErrLogNotFound) {
					continue // trimmed meanwhile
				}
				if err == nil {
					err = sameEntry(&e, testEntry(i, 1, 300))
				}
				if err != nil {
					v.t.Errorf("reading entry %d: %v", i, err)
					return
				}
			}
		})
	}
	for n := range 100 {
		if v.store(l, rand.Uint64N(12)+1, 1) != nil {
			break
		}
		if n%10 == 9 {
			v.compact(l, 50)
		}
	}
	close(ended)
	readers.Wait()
}
