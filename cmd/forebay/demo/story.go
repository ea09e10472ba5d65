package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	topic      = "user-behavior-topic"
	partitions = 4
	pages      = 40
)

// producer writes user behaviour on web pages, lines "page|clicks|minutes|like",
// and keeps its own account of what Kafka has confirmed.
type producer struct {
	client *kgo.Client
	random *rand.Rand

	mu     sync.Mutex
	sent   int64
	scores map[string]int64 // whole tenths by page
	lines  map[int32]map[int64]string
	err    error
}

func newProducer(brokers []string, seed uint64) (*producer, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ProducerLinger(5*time.Millisecond), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	if err != nil {
		return nil, err
	}
	p := &producer{client: client, random: rand.New(rand.NewPCG(seed, 1)), scores: map[string]int64{}, lines: map[int32]map[int64]string{}}
	for n := range int32(partitions) {
		p.lines[n] = map[int64]string{}
	}
	return p, nil
}

// run produces rate lines a second until ctx ends, and returns when all are confirmed.
func (p *producer) run(ctx context.Context, rate int) error {
	const tick = 20 * time.Millisecond
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	start := time.Now()
	for made := 0; ctx.Err() == nil; {
		for due := int(time.Since(start).Seconds() * float64(rate)); made < due; made++ {
			p.produce()
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := p.client.Flush(flush); err != nil {
		return fmt.Errorf("producing: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *producer) produce() {
	// Low page numbers are visited more often: the square of a fair draw.
	draw := p.random.Float64()
	page := fmt.Sprintf("page-%02d", int(draw*draw*pages)+1)
	clicks, minutes, like := p.random.IntN(20), p.random.IntN(30), p.random.IntN(3)-1
	line := page + "|" + strconv.Itoa(clicks) + "|" + strconv.Itoa(minutes) + "|" + strconv.Itoa(like)
	record := &kgo.Record{Topic: topic, Key: []byte(page), Value: []byte(line)}
	p.client.Produce(context.Background(), record, func(r *kgo.Record, err error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if err != nil {
			p.err = err
			return
		}
		p.sent++
		p.scores[page] += int64(8*clicks + 8*minutes + 10*like)
		p.lines[r.Partition][r.Offset] = line
	})
}

// confirmed is how many lines Kafka has confirmed.
func (p *producer) confirmed() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent
}

func (p *producer) close() { p.client.Close() }
