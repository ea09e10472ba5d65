package record_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"forebay/internal/record"
)

// payloads are 256 KiB of records each, as a block has them.
func payloads() map[string][]record.Record {
	random := rand.NewChaCha8([32]byte{3})
	source := rand.New(random)
	compressible, incompressible := []record.Record{}, []record.Record{}
	for i := range 512 {
		value := fmt.Appendf(nil, `{"user":%d,"session":"%08x","page":"/products/%d","action":"click","referrer":"https://www.example.com/search?q=forebay","agent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36","minutes":%d,"like":%d,"tags":["home","sale","mobile"],"country":"DE","campaign":"autumn","ab":{"layout":"b","price":"a","search":"c"},"viewport":{"width":1920,"height":1080},"consent":true,"version":"2026.11.%d"}`,
			source.IntN(100000), source.Uint32(), source.IntN(500), source.IntN(60), source.IntN(3)-1, source.IntN(30))
		compressible = append(compressible, record.Record{Topic: "t", Offset: int64(i), Timestamp: 1700000000000 + int64(i), Key: fmt.Appendf(nil, "user-%d", i), Value: value})
	}
	for i := range 256 {
		value := make([]byte, 1024)
		_, _ = random.Read(value)
		incompressible = append(incompressible, record.Record{Topic: "t", Offset: int64(i), Timestamp: 1700000000000 + int64(i), Value: value})
	}
	return map[string][]record.Record{"json": compressible, "random": incompressible}
}

func fill(b *testing.B, run *record.Run, records []record.Record) {
	run.Reset("t", record.TopicID{}, 0, 0)
	for i := range records {
		if err := run.Append(&records[i]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	for name, records := range payloads() {
		b.Run(name, func(b *testing.B) {
			var run record.Run
			fill(b, &run, records)
			b.SetBytes(int64(run.Size()))
			b.ReportAllocs()
			for b.Loop() {
				fill(b, &run, records)
			}
		})
	}
}

func BenchmarkSeal(b *testing.B) {
	for name, records := range payloads() {
		for _, method := range methods {
			b.Run(name+"/"+method.String(), func(b *testing.B) {
				var run record.Run
				fill(b, &run, records)
				sealer := record.NewSealer(method)
				b.SetBytes(int64(run.Size()))
				b.ReportAllocs()
				var block []byte
				for b.Loop() {
					block = sealer.Seal([]*record.Run{&run})
				}
				b.ReportMetric(float64(len(block))/float64(run.Size()), "ratio")
			})
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, records := range payloads() {
		for _, method := range methods {
			b.Run(name+"/"+method.String(), func(b *testing.B) {
				var run record.Run
				fill(b, &run, records)
				block := record.NewSealer(method).Seal([]*record.Run{&run})
				b.SetBytes(int64(run.Size()))
				b.ReportAllocs()
				var d record.Decoder
				var r record.Record
				for b.Loop() {
					if err := d.Open(block, nil); err != nil {
						b.Fatal(err)
					}
					for {
						ok, err := d.Next(&r)
						if err != nil {
							b.Fatal(err)
						}
						if !ok {
							break
						}
					}
				}
			})
		}
	}
}
