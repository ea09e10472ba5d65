package receiver

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"forebay/internal/record"
)

// swallow is a log that settles everything at once.
type swallow struct{ *memLog }

func (swallow) Append(_ context.Context, _ []byte, settled func(error)) error {
	settled(nil)
	return nil
}

// idleSession and idleGroup answer what a claim asks of sarama.
type idleSession struct{ sarama.ConsumerGroupSession }

func (idleSession) MarkOffset(string, int32, int64, string) {}

type idleGroup struct{ sarama.ConsumerGroup }

func (idleGroup) Pause(map[string][]int32)  {}
func (idleGroup) Resume(map[string][]int32) {}

// BenchmarkClaim takes records of 1 KiB from a channel into blocks.
func BenchmarkClaim(b *testing.B) {
	r, err := New(Config{Brokers: []string{"x"}, Group: "g", Topics: []string{"a"}}, swallow{newMemLog(b)})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s := newSession(ctx, r, idleGroup{}, nil, &plan{})
	s.sess = idleSession{}
	s.start = map[key]record.Position{{"a", 0}: {}}
	s.workers.Go(func() { (&sealer{s: s, codec: record.NewSealer(0)}).run(ctx) })
	msgs := make(chan *sarama.ConsumerMessage, channelBuffer)
	c := newClaim(s, key{"a", 0}, record.Position{}, msgs)
	done := make(chan error, 1)
	go func() { done <- c.loop(ctx) }()
	pool := make([]sarama.ConsumerMessage, 4*channelBuffer)
	for i := range pool {
		pool[i] = sarama.ConsumerMessage{Topic: "a", Key: []byte("key"), Value: make([]byte, 1024), Timestamp: time.UnixMilli(1_763_700_000_123)}
	}
	b.SetBytes(1024)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		m := &pool[n%len(pool)]
		m.Offset = int64(n)
		msgs <- m
		n++
	}
	close(msgs)
	if err := <-done; !errors.Is(err, errClaimEnded) {
		b.Fatal(err)
	}
	cancel()
	s.workers.Wait()
}
