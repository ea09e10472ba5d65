package bench

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"forebay/internal/record"
	"forebay/replicate"
	"forebay/wal"
)

const diskBytes = 512 << 20

// rawDisk is the rate of 1 MiB appends with fdatasync after each, in MiB/s.
func rawDisk(t *testing.T) float64 {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	chunk := noise(1 << 20)
	start := time.Now()
	for range diskBytes / len(chunk) {
		if _, err := f.Write(chunk); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			t.Fatal(err)
		}
	}
	return diskBytes / time.Since(start).Seconds() / (1 << 20)
}

// throughRaft is the rate at which blocks of 256 KiB become durable in a lane of
// one voter, in MiB/s.
func throughRaft(t *testing.T) float64 {
	t.Helper()
	dir := t.TempDir()
	log, err := wal.Open(wal.Config{Dir: dir, OnFailure: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	}()
	lane, err := replicate.Open(replicate.Config{NodeID: "n1", Gateway: "bench", Lanes: 1, Dir: dir, Store: log, Retention: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := lane.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	var rate float64
	ctx, cancel := context.WithCancel(t.Context())
	err = lane.Lead(ctx, func(ctx context.Context, term *replicate.Term) {
		defer cancel()
		rate = appendBlocks(ctx, t, term)
	})
	if ctx.Err() == nil {
		t.Fatal(err)
	}
	return rate
}

func appendBlocks(ctx context.Context, t *testing.T, term *replicate.Term) float64 {
	id := record.TopicID{1}
	if err := term.SetBases(ctx, []record.Base{{Topic: "t", TopicID: id}}); err != nil {
		t.Error(err)
		return 0
	}
	var run record.Run
	sealer := record.NewSealer(record.None)
	value := noise(1 << 10)
	const perBlock = 255
	blocks := diskBytes / (perBlock * len(value))
	settled := make(chan error, blocks)
	start := time.Now()
	for n := range int64(blocks) {
		run.Reset("t", id, 0, n*perBlock)
		for i := range int64(perBlock) {
			if err := run.Append(&record.Record{Offset: n*perBlock + i, Value: value}); err != nil {
				t.Error(err)
				return 0
			}
		}
		if err := term.Append(ctx, sealer.Seal([]*record.Run{&run}), func(err error) { settled <- err }); err != nil {
			t.Error(err)
			return 0
		}
	}
	for range blocks {
		if err := <-settled; err != nil {
			t.Error(err)
			return 0
		}
	}
	return float64(blocks*perBlock*len(value)) / time.Since(start).Seconds() / (1 << 20)
}

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}
