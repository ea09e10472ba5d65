package bench

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"forebay/wal"
)

const (
	trimRounds   = 6
	trimSegments = 250 // that go at once: 1 GB
	trimAppends  = 300 // of entryBytes, in each turn
	// libraryMemory is after how many segments the log opens its library anew.
	libraryMemory = 4096
)

// TestLogTrim measures whether retention holds up appends: while segments are removed, and when
// the library is opened anew to forget those that are gone.
func TestLogTrim(t *testing.T) {
	forFigures(t)
	var table strings.Builder
	table.WriteString("| appends of 256 KiB | p50 ms | p99 ms | longest ms |\n|---|---|---|---|\n")
	quiet, trimming := trims(t)
	row := func(what string, all []float64) {
		slices.Sort(all)
		fmt.Fprintf(&table, "| %s | %.2f | %.2f | %.2f |\n", what, all[len(all)/2], all[len(all)*99/100], all[len(all)-1])
	}
	row("alone", quiet)
	row(fmt.Sprintf("while %d segments of 4 MiB are removed", trimSegments), trimming)
	ordinary, reopening := reopens(t)
	row("of 64 KiB, each ends a segment", ordinary)
	row(fmt.Sprintf("the one in %d that opens the library anew, %d segments there", libraryMemory, reopenLive), reopening)
	fmt.Printf("\nRetention beside appends, %d turns each.\n\n%s\n", trimRounds, table.String())
}

// trims gives the latencies of appends in ms, alone and beside the removal of segments.
func trims(t *testing.T) (quiet, trimming []float64) {
	t.Helper()
	files := &watchedFiles{}
	l := openLog(t, wal.Config{Dir: t.TempDir(), Files: files})
	defer closeLog(t, l)
	data := noise(entryBytes)
	var last uint64
	for range trimRounds {
		files.quick.Store(true)
		last = mustAppend(t, l, data, last, trimSegments*16)
		files.quick.Store(false)
		appendTimed(t, l, data, &last, trimAppends) // what filling has left behind settles
		quiet = append(quiet, appendTimed(t, l, data, &last, trimAppends)...)
		keep := last - 64
		l.SetFloor(keep)
		l.SetApplied(last)
		first, err := l.FirstIndex()
		if err != nil {
			t.Fatal(err)
		}
		if err := l.DeleteRange(first, keep-1); err != nil {
			t.Fatal(err)
		}
		trimming = append(trimming, appendTimed(t, l, data, &last, trimAppends)...)
		for deadline := time.Now().Add(time.Minute); l.Stats().Segments > 200; {
			if time.Now().After(deadline) {
				t.Fatal("the segments are not removed")
			}
			trimming = append(trimming, appendTimed(t, l, data, &last, 10)...)
		}
	}
	return quiet, trimming
}

// reopenLive is how many segments are there when the library is opened anew, 10 GiB of ordinary ones.
const reopenLive = 2560

// reopens gives the latencies of appends that end a segment, and of those that open the library anew.
func reopens(t *testing.T) (ordinary, reopening []float64) {
	t.Helper()
	const size = 64 << 10
	l := openLog(t, wal.Config{Dir: t.TempDir(), SegmentSize: size})
	defer closeLog(t, l)
	data := noise(size)
	var last uint64
	for range 2 * libraryMemory {
		took := appendTimed(t, l, data, &last, 1)[0]
		if last%libraryMemory == 0 {
			reopening = append(reopening, took)
		} else {
			ordinary = append(ordinary, took)
		}
		if last > reopenLive {
			l.SetFloor(last - reopenLive)
			l.SetApplied(last)
			if first, err := l.FirstIndex(); err != nil || l.DeleteRange(first, last-reopenLive-1) != nil {
				t.Fatal("not trimmed", err)
			}
		}
	}
	return ordinary, reopening
}

func appendTimed(t *testing.T, l *wal.Log, data []byte, last *uint64, count int) []float64 {
	t.Helper()
	took := make([]float64, 0, count)
	for range count {
		*last++
		start := time.Now()
		if err := l.StoreLog(&raft.Log{Index: *last, Term: 1, Type: raft.LogCommand, Data: data}); err != nil {
			t.Fatal(err)
		}
		took = append(took, float64(time.Since(start).Microseconds())/1000)
	}
	return took
}

func closeLog(t *testing.T, l *wal.Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
