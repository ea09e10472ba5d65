package record_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"forebay/internal/record"
)

// payloads are 256 KiB of records each, as a block has them.
func payloads() map[string][]record.Record {
	random := rand.NewChaCha8([32]byte{3})
	source := rand.New(random)
	compressible, incompressible := []record.Record{}, []record.Record{}
	agents := []string{
		"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.1 Mobile/15E148",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:121.0) Gecko/20100101 Firefox/121.0",
	}
	words := strings.Fields("autumn boots coat denim evening forebay garden hat iron jacket kettle lamp mirror notebook oak pillow")
	word := func() string { return words[source.IntN(len(words))] }
	for i := range 512 {
		value := fmt.Appendf(nil, `{"id":"%016x-%016x","user":%d,"session":"%016x","at":%d,"page":"/products/%s-%s-%d","action":"click","referrer":"https://www.example.com/search?q=%s+%s","agent":"%s","minutes":%d,"like":%d,"tags":["%s","%s"],"country":"DE","price":%d.%02d,"layout":"b","viewport":{"width":1920,"height":1080},"consent":true}`,
			source.Uint64(), source.Uint64(), source.IntN(100000), source.Uint64(), 1700000000000+i*37+source.IntN(30), word(), word(), source.IntN(5000),
			word(), word(), agents[source.IntN(len(agents))], source.IntN(60), source.IntN(3)-1, word(), word(), source.IntN(300), source.IntN(100))
		compressible = append(compressible, record.Record{Topic: "t", Offset: int64(i), Timestamp: 1700000000000 + int64(i)*37, Key: fmt.Appendf(nil, "user-%d", source.IntN(100000)), Value: value})
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

func BenchmarkParseSummary(b *testing.B) {
	for _, spans := range []int{1, 40} {
		b.Run(fmt.Sprint(spans), func(b *testing.B) {
			block := record.NewSealer(record.S2).Seal(manyRuns(b)[:spans])
			b.ReportAllocs()
			for b.Loop() {
				if _, err := record.ParseSummary(block); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
