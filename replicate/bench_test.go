package replicate

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"forebay/internal/record"
)

// benchLane is a lane that is ready, without a test's cleanups.
func benchLane(b *testing.B) (*Lane, *Term) {
	b.Helper()
	l, err := Open(Config{
		NodeID: "n1", Gateway: "forebay", Lanes: 1, Dir: b.TempDir(), Store: newMemStore(),
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	terms, led := make(chan *Term), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		led <- l.Lead(ctx, func(ctx context.Context, t *Term) { terms <- t; <-ctx.Done() })
	}()
	b.Cleanup(func() {
		cancel()
		if err := <-led; !errors.Is(err, context.Canceled) {
			b.Error(err)
		}
		if err := l.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	t := <-terms
	if err := t.SetBases(ctx, []record.Base{{Topic: "a", TopicID: topicA}}); err != nil {
		b.Fatal(err)
	}
	return l, t
}

// benchBlock is a block of 256 records of 1 KiB.
func benchBlock(b *testing.B, base int64) []byte {
	b.Helper()
	var run record.Run
	run.Reset("a", topicA, 0, base)
	for i := range int64(256) {
		rec := record.Record{Topic: "a", Offset: base + i, Value: payload(base+i, 1024)}
		if err := run.Append(&rec); err != nil {
			b.Fatal(err)
		}
	}
	return record.NewSealer(record.None).Seal([]*record.Run{&run})
}

// BenchmarkAppend proposes blocks of 256 KiB through Raft into memory.
func BenchmarkAppend(b *testing.B) {
	_, t := benchLane(b)
	blocks := make([][]byte, b.N)
	for i := range blocks {
		blocks[i] = benchBlock(b, int64(i)*256)
	}
	b.SetBytes(int64(len(blocks[0])))
	b.ReportAllocs()
	b.ResetTimer()
	settled := make(chan error, b.N)
	for _, block := range blocks {
		if err := t.Append(context.Background(), block, func(err error) { settled <- err }); err != nil {
			b.Fatal(err)
		}
	}
	for range blocks {
		if err := <-settled; err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRead reads a batch of 64 blocks of 256 records.
func BenchmarkRead(b *testing.B) {
	_, t := benchLane(b)
	settled := make(chan error, 64)
	for i := range int64(64) {
		if err := t.Append(context.Background(), benchBlock(b, i*256), func(err error) { settled <- err }); err != nil {
			b.Fatal(err)
		}
	}
	for range 64 {
		if err := <-settled; err != nil {
			b.Fatal(err)
		}
	}
	if err := t.Cut(context.Background(), 1, 1); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(64 * 256 * 1024)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		n := 0
		err := t.Read(context.Background(), 1, nil, func(*record.Record) error { n++; return nil })
		if err != nil || n != 64*256 {
			b.Fatal(n, err)
		}
	}
}
