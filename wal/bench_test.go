package wal

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/hashicorp/raft"
)

// The sizes of entries that the gateway writes, in bytes.
var benchSizes = [...]int{64 << 10, 256 << 10, 1 << 20}

func benchData(size int) []byte {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i * 7)
	}
	return data
}

// BenchmarkAppend stores groups of entries, each group with its sync. What it costs beside the
// bare library and the bare file is measured in turns by `make bench-log`.
func BenchmarkAppend(b *testing.B) {
	for _, size := range benchSizes {
		for _, count := range [...]int{1, 32} {
			b.Run(fmt.Sprintf("%dKiB/%d", size>>10, count), func(b *testing.B) {
				l := mustOpen(b, Config{Dir: b.TempDir(), Logger: slog.New(slog.DiscardHandler)})
				data := benchData(size)
				b.SetBytes(int64(size * count))
				b.ReportAllocs()
				group := make([]*raft.Log, count)
				for i := uint64(1); b.Loop(); {
					for at := range group {
						group[at] = &raft.Log{Index: i, Term: 1, Data: data}
						i++
					}
					mustStore(b, l, group...)
				}
			})
		}
	}
}

// benchLog has 256 MiB of entries of 256 KiB.
func benchLog(b *testing.B) (*Log, uint64) {
	b.Helper()
	l := mustOpen(b, Config{Dir: b.TempDir(), Files: quickFiles{}, Logger: slog.New(slog.DiscardHandler)})
	data := benchData(256 << 10)
	const n = 1024
	for i := uint64(1); i <= n; i++ {
		mustStore(b, l, &raft.Log{Index: i, Term: 1, Data: data})
	}
	return l, n
}

// BenchmarkRead reads in sequence, from memory and from the page cache.
func BenchmarkRead(b *testing.B) {
	l, n := benchLog(b)
	var e raft.Log
	read := func(b *testing.B, from, count uint64) {
		b.SetBytes(256 << 10)
		b.ReportAllocs()
		for i := uint64(0); b.Loop(); i++ {
			if err := l.GetLog(from+i%count, &e); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("hot", func(b *testing.B) { read(b, n-32, 32) })
	b.Run("cold", func(b *testing.B) { read(b, 1, n/2) })
}

func BenchmarkVerify(b *testing.B) {
	l, _ := benchLog(b)
	b.SetBytes(l.Bytes())
	for b.Loop() {
		r, err := Inspect(l.cfg.Dir)
		if err != nil {
			b.Fatal(err)
		}
		if rep, err := r.Verify(nil); err != nil || len(rep.Damage) > 0 {
			b.Fatal(rep, err)
		}
	}
}

// BenchmarkOpen opens a log with 16 MiB behind its snapshot, and one of as many segments as
// 10 GiB have, which are small so that what each costs shows.
func BenchmarkOpen(b *testing.B) {
	open := func(b *testing.B, cfg Config) {
		for b.Loop() {
			mustClose(b, mustOpen(b, cfg))
		}
	}
	b.Run("tail", func(b *testing.B) {
		l, n := benchLog(b)
		cfg := l.cfg
		mustClose(b, l)
		cfg.SnapshotIndex, cfg.SnapshotTerm = n-64, 1
		open(b, cfg)
	})
	b.Run("2560 segments", func(b *testing.B) {
		cfg := Config{Dir: b.TempDir(), SegmentSize: minSegmentSize, Files: quickFiles{}, Logger: slog.New(slog.DiscardHandler)}
		l := mustOpen(b, cfg)
		const n = 2560
		fill(b, l, 1, n, 1, minSegmentSize)
		mustClose(b, l)
		cfg.SnapshotIndex, cfg.SnapshotTerm = n, 1
		open(b, cfg)
	})
}
