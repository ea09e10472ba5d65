package file

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"forebay/internal/record"
	"forebay/sinks/lines"
	"forebay/sinks/sinktest"
)

// BenchmarkDeliver delivers batches of 64 MiB, sync included. Bytes are those of the values.
func BenchmarkDeliver(b *testing.B) {
	const size = 64 << 20
	for _, c := range []Config{
		{Format: lines.Raw},
		{Format: lines.JSONL, Encoding: lines.Base64},
		{Format: lines.JSONL, Encoding: lines.UTF8},
		{Format: lines.JSONL, Encoding: lines.JSON},
		{Format: lines.JSONL, Encoding: lines.UTF8, Compression: Zstd},
		{Format: lines.JSONL, Encoding: lines.UTF8, Compression: Gzip},
	} {
		for _, n := range []int{200, 2000} {
			b.Run(fmt.Sprintf("%s-%s-%s/%d", c.Format, c.Encoding, c.Compression, n), func(b *testing.B) {
				c.Dir = b.TempDir()
				s := opened(b, c, sinktest.Identity(1, 1))
				rec := sinktest.Records(0, 1)[0]
				rec.Key = []byte(`"key"`)
				rec.Value = fmt.Appendf(nil, `{"page":"%s"}`, bytes.Repeat([]byte("p"), n-11))
				read := func(_ context.Context, fn func(*record.Record) error) error {
					for i := range size / n {
						rec.Offset = int64(i)
						if err := fn(&rec); err != nil {
							return err
						}
					}
					return nil
				}
				b.SetBytes(size)
				b.ReportAllocs()
				seq := uint64(0)
				for b.Loop() {
					seq++
					batch := sinktest.NewBatch(1, seq, nil)
					batch.Read = read
					if err := s.Deliver(b.Context(), batch, sinktest.Accept); err != nil {
						b.Fatal(err)
					}
					if err := s.Advanced(b.Context(), record.BatchID{Seq: seq + 1}, record.BatchID{}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
