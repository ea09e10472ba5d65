package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// codecs are all that Kafka knows.
func codecs() []kgo.CompressionCodec {
	return []kgo.CompressionCodec{
		kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(),
	}
}

// producer writes records of every kind into one topic and remembers what was
// acknowledged. Its methods are for one goroutine at a time.
type producer struct {
	t       *testing.T
	b       *broker
	topic   string
	random  *rand.Rand
	clients []*kgo.Client // one per codec
	tx      *kgo.Client   // made at the first transaction
	sent    int
	linger  time.Duration // between the last record of a transaction and its end

	mu     sync.Mutex
	acked  ledger
	failed error
	hash   *hasher
}

func (b *broker) producer(topic string, seed uint64) *producer {
	b.t.Helper()
	p := &producer{t: b.t, b: b, topic: topic, random: rand.New(rand.NewPCG(seed, 1)), acked: ledger{}, hash: newHasher()}
	for _, codec := range codecs() {
		p.clients = append(p.clients, p.client(kgo.ProducerBatchCompression(codec)))
	}
	return p
}

func (p *producer) client(options ...kgo.Opt) *kgo.Client {
	p.t.Helper()
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(p.b.cluster.Internal()...), kgo.DefaultProduceTopic(p.topic),
		kgo.ProducerBatchMaxBytes(32<<20), kgo.BrokerMaxWriteBytes(100<<20), kgo.MaxBufferedBytes(96<<20), kgo.ProducerLinger(2*time.Millisecond))...)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(client.Close)
	return client
}

// send writes n records that make gives, by all codecs in turn, and returns
// when all are acknowledged.
func (p *producer) send(ctx context.Context, n int, makeRecord func(*rand.Rand) *kgo.Record) {
	p.t.Helper()
	const burst = 20 // records in a row by one codec
	for range n {
		p.sent++
		p.clients[p.sent/burst%len(p.clients)].Produce(ctx, makeRecord(p.random), p.ack)
	}
	p.flush(ctx)
}

func (p *producer) flush(ctx context.Context) {
	p.t.Helper()
	for _, client := range p.clients {
		if err := client.Flush(ctx); err != nil {
			p.t.Fatalf("producing: %v", err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed != nil {
		p.t.Fatalf("producing: %v", p.failed)
	}
}

func (p *producer) ack(r *kgo.Record, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.failed = err
		return
	}
	p.acked.add(place{r.Topic, r.Partition}, entry{r.Offset, p.hash.record(r)})
}

// transaction writes n records in a transaction, and commits or aborts it.
func (p *producer) transaction(ctx context.Context, n int, commit bool, makeRecord func(*rand.Rand) *kgo.Record) {
	p.t.Helper()
	if p.tx == nil {
		p.tx = p.client(kgo.TransactionalID(p.topic + "-tx"))
	}
	if err := p.tx.BeginTransaction(); err != nil {
		p.t.Fatal(err)
	}
	ack := p.ack
	if !commit {
		ack = func(*kgo.Record, error) {}
	}
	for range n {
		p.tx.Produce(ctx, makeRecord(p.random), ack)
	}
	if err := p.tx.Flush(ctx); err != nil {
		p.t.Fatalf("producing in a transaction: %v", err)
	}
	if p.linger > 0 {
		select { // a transaction that takes its time, whatever that does to segments
		case <-time.After(p.linger):
		case <-ctx.Done():
		}
	}
	if err := p.tx.EndTransaction(ctx, kgo.TransactionEndTry(commit)); err != nil {
		p.t.Fatalf("ending a transaction: %v", err)
	}
}

// stream writes bursts of records, and transactions of both ends, until ctx
// ends; wait returns when what was begun is acknowledged. perSecond is about.
func (p *producer) stream(ctx context.Context, perSecond int, makeRecord func(*rand.Rand) *kgo.Record) (wait func()) {
	const every = 50 * time.Millisecond
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		whole := p.t.Context()
		for i := 1; ; i++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			n := max(1, perSecond*int(every)/int(time.Second))
			if i%7 == 0 {
				p.transaction(whole, n, i%2 == 0, makeRecord)
			} else {
				p.send(whole, n, makeRecord)
			}
		}
	}()
	return func() { <-done }
}

// mixed makes records of every kind, up to 2 KiB.
func mixed(random *rand.Rand) *kgo.Record {
	r := &kgo.Record{Value: data(random, random.IntN(2048))}
	switch random.IntN(10) {
	case 0: // a key of nil
	case 1:
		r.Key = []byte{}
	case 2:
		r.Key = data(random, 200)
	default:
		r.Key = fmt.Appendf(nil, "key-%d", random.IntN(1000))
	}
	switch random.IntN(20) {
	case 0:
		r.Value = nil
	case 1:
		r.Value = []byte{}
	}
	for i := range max(0, random.IntN(8)-4) {
		header := kgo.RecordHeader{Key: fmt.Sprintf("h%d", random.IntN(2)), Value: data(random, i*5)}
		if random.IntN(4) == 0 {
			header.Value = nil
		}
		r.Headers = append(r.Headers, header)
	}
	return r
}

// big makes records of 100 KB to 5 MB.
func big(random *rand.Rand) *kgo.Record {
	return &kgo.Record{Key: []byte("big"), Value: data(random, 100_000+random.IntN(4_900_000))}
}

// data is n bytes, half of the time such that they compress.
func data(random *rand.Rand, n int) []byte {
	if random.IntN(2) == 0 {
		text := fmt.Appendf(nil, `{"user":%d,"page":"/p/%d","clicks":%d}`, random.IntN(1e6), random.IntN(100), random.IntN(9))
		return bytes.Repeat(text, n/len(text)+1)[:n]
	}
	out := make([]byte, n+8)
	for i := 0; i < n; i += 8 {
		word := random.Uint64()
		for j := range 8 {
			out[i+j] = byte(word >> (8 * j))
		}
	}
	return out[:n:n]
}
