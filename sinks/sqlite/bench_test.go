package sqlite

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"forebay/internal/record"
)

// BenchmarkDeliver gives rows a second for batches of 20,000 records of 100 bytes, on
// the file system of the test's temporary directory, syncs included.
func BenchmarkDeliver(b *testing.B) {
	const n = 20_000
	recs := make([]record.Record, n)
	for i := range recs {
		recs[i] = lines(int64(i), fmt.Sprintf("page-%03d|%d|%080d", i%500, i%97, i))[0]
		recs[i].Key = fmt.Appendf(nil, "key-%d", i)
	}
	for name, cfg := range map[string]Config{
		"insert":     {Table: "raw", Create: true},
		"accumulate": totals(b, ""),
	} {
		b.Run(name, func(b *testing.B) {
			cfg.Path = filepath.Join(b.TempDir(), "x.db")
			s := newSink(b, cfg)
			open(b, s, identity(1, 1))
			r := new(recorder)
			seq := uint64(0)
			b.ReportAllocs()
			for b.Loop() {
				seq++
				bt := batch(1, seq)
				bt.Read = func(_ context.Context, fn func(*record.Record) error) error {
					for i := range recs {
						if err := fn(&recs[i]); err != nil {
							return err
						}
					}
					return nil
				}
				if err := s.Deliver(b.Context(), bt, r.settle); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
