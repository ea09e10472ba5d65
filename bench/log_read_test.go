package bench

import (
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"forebay/wal"
)

const (
	readRounds = 9
	readSlice  = 200 * time.Millisecond
	// readEntries fill the log before reading begins: 1 GiB.
	readEntries = 4096
	// hotEntries are the newest ones, which are in memory: an eighth of the ring's.
	hotEntries = 8
	// readGroup is how many entries are appended at a time meanwhile, 2 MiB.
	readGroup = 8
)

// A reading is one way of reading while appends go on, or not.
type reading struct {
	what    string
	readers int
	hot     bool // the newest entries
	forget  bool // the page cache is emptied before each turn
	appends bool
}

// TestLogRead measures reading, and what readers take away from appends.
func TestLogRead(t *testing.T) {
	forFigures(t)
	files := &watchedFiles{}
	files.quick.Store(true)
	dir := t.TempDir()
	l := openLog(t, wal.Config{Dir: dir, Files: files})
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	r := &readBench{t: t, dir: dir, log: l, files: files, data: noise(entryBytes)}
	r.last.Store(mustAppend(t, l, r.data, 0, readEntries))
	files.quick.Store(false)

	var readings []reading
	for _, n := range [...]int{1, 3, 8} {
		readings = append(readings, reading{"hot", n, true, false, true}, reading{"cold, page cache", n, false, false, true})
	}
	readings = append(readings, reading{"cold, disk", 3, false, true, true},
		reading{"hot, no appends", 1, true, false, false}, reading{"cold, page cache, no appends", 1, false, false, false},
		reading{"cold, disk, no appends", 1, false, true, false})
	results := make([]readResult, len(readings))
	var hotReads int64
	for range readRounds {
		for i, what := range readings {
			// Beside each turn of readers lies one of appends alone: from second to second a
			// machine that is shared is not the same.
			if what.appends {
				_, alone := r.turn(reading{appends: true})
				results[i].alone = append(results[i].alone, alone)
			}
			before := files.reads.Load()
			read, written := r.turn(what)
			if what.hot {
				hotReads += files.reads.Load() - before
			}
			results[i].reads, results[i].writes = append(results[i].reads, read), append(results[i].writes, written)
		}
	}
	if hotReads > 0 {
		t.Errorf("hot readers came to the disk %d times", hotReads)
	}
	var table strings.Builder
	table.WriteString("| readers | read MiB/s | appended MiB/s | of appends alone | CPU s/GiB read |\n|---|---|---|---|---|\n")
	for i, what := range readings {
		fmt.Fprintf(&table, "| %d %s | %s |\n", what.readers, what.what, results[i].row(what))
	}
	fmt.Printf("\nReads of %d KiB entries while groups of %d are appended; medians of %d turns. Hot readers did %d reads of files.\n\n%s\n",
		entryBytes>>10, readGroup, readRounds, hotReads, table.String())
}

// readResult is what the turns of one reading gave.
type readResult struct{ reads, writes, alone []spent }

func (r *readResult) row(what reading) string {
	rate := medianOf(r.reads, spent.rate)
	if what.appends {
		return fmt.Sprintf("%.0f | %.0f | %.2f |", rate, medianOf(r.writes, spent.rate), ratio(r.writes, r.alone, spent.rate))
	}
	return fmt.Sprintf("%.0f | | | %.2f", rate, medianOf(r.reads, spent.cpuPerGiB))
}

func mustAppend(t *testing.T, l *wal.Log, data []byte, last uint64, count int) uint64 {
	t.Helper()
	last, err := appendEntries(l, data, last, count, 64)
	if err != nil {
		t.Fatal(err)
	}
	return last
}

type readBench struct {
	t     *testing.T
	dir   string
	log   *wal.Log
	files *watchedFiles
	data  []byte
	last  atomic.Uint64
	sum   atomic.Uint32 // of what hot readers have read, so that they read it
}

// turn lets readers and the writer run for a slice, and returns what each did.
func (r *readBench) turn(what reading) (read, written spent) {
	r.t.Helper()
	if what.forget {
		forget(r.t, r.dir)
	}
	var users sync.WaitGroup
	var readBytes, writtenBytes atomic.Int64
	failed := make(chan error, what.readers+1)
	cpu, start := cpuTime(r.t), time.Now()
	running := func() bool { return time.Since(start) < readSlice }
	for i := range what.readers {
		// Each reader has a stretch of its own.
		users.Go(func() {
			at, buf := uint64(1+i*readEntries/max(what.readers, 1)), []byte(nil)
			for running() {
				n, err := r.read(what.hot, &at, &buf)
				if err != nil {
					failed <- err
					return
				}
				readBytes.Add(n)
			}
		})
	}
	if what.appends {
		users.Go(func() {
			for running() {
				last, err := appendEntries(r.log, r.data, r.last.Load(), readGroup, readGroup)
				if err != nil {
					failed <- err
					return
				}
				r.last.Store(last)
				writtenBytes.Add(int64(readGroup * len(r.data)))
			}
		})
	}
	users.Wait()
	wall, used := time.Since(start), cpuTime(r.t)-cpu
	close(failed)
	for err := range failed {
		r.t.Fatal(err)
	}
	return spent{readBytes.Load(), wall, used}, spent{writtenBytes.Load(), wall, used}
}

// read takes the entry at at, or one of the newest.
func (r *readBench) read(hot bool, at *uint64, buf *[]byte) (int64, error) {
	index := *at
	if hot {
		index = r.last.Load() - *at%hotEntries
	} else if index > readEntries {
		*at, index = 1, 1
	}
	*at++
	var e raft.Log
	if err := r.log.ReadLog(index, &e, buf); err != nil {
		return 0, err
	}
	if e.Index != index || len(e.Data) != entryBytes {
		return 0, errors.New("another entry was read")
	}
	if hot { // a cold read has looked at every byte already
		r.sum.Add(crc32.ChecksumIEEE(e.Data))
	}
	return int64(len(e.Data)), nil
}

// TestLogVerify measures `forebay wal verify` from the page cache.
func TestLogVerify(t *testing.T) {
	forFigures(t)
	files := &watchedFiles{}
	files.quick.Store(true)
	dir := t.TempDir()
	l := openLog(t, wal.Config{Dir: dir, Files: files})
	mustAppend(t, l, noise(entryBytes), 0, readEntries)
	size := l.Bytes()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var turns []spent
	for range readRounds {
		turns = append(turns, measure(t, func() (int64, error) {
			r, err := wal.Inspect(dir)
			if err != nil {
				return 0, err
			}
			report, err := r.Verify(nil)
			if err == nil && (len(report.Damage) > 0 || report.Entries != readEntries) {
				err = fmt.Errorf("not whole: %+v", report)
			}
			return size, err
		}))
	}
	fmt.Printf("\nverify, 1 GiB from the page cache: %.0f MiB/s, %.2f CPU s/GiB (medians of %d)\n",
		medianOf(turns, spent.rate), medianOf(turns, spent.cpuPerGiB), readRounds)
}
