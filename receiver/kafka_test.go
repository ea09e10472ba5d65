package receiver

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"forebay/internal/record"
)

// patience bounds every wait of these tests.
const patience = 20 * time.Second

// broker is an in-process Kafka with a producer and an admin client.
type broker struct {
	t   testing.TB
	k   *kfake.Cluster
	cl  *kgo.Client
	adm *kadm.Client
}

func newBroker(t testing.TB, partitions int32, topics ...string) *broker {
	t.Helper()
	k, err := kfake.NewCluster(
		kfake.NumBrokers(1), kfake.SeedTopics(partitions, topics...), kfake.GroupMinSessionTimeout(100*time.Millisecond),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0", "message.max.bytes": "67108864"}),
	)
	if err != nil {
		t.Fatal(err)
	}
	b := &broker{t: t, k: k}
	b.cl = b.client()
	b.adm = kadm.NewClient(b.cl)
	t.Cleanup(func() { b.cl.Close(); k.Close() })
	return b
}

func (b *broker) client(opts ...kgo.Opt) *kgo.Client {
	b.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(b.k.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(64 << 20), kgo.ProducerLinger(0), kgo.MetadataMinAge(10 * time.Millisecond),
	}, opts...)...)
	if err != nil {
		b.t.Fatal(err)
	}
	return cl
}

// produce writes records and waits for them.
func (b *broker) produce(recs ...*kgo.Record) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.cl.ProduceSync(ctx, recs...).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
}

// numbered makes n records, each saying its number, spread over partitions.
func numbered(topic string, partitions int32, from, n int) []*kgo.Record {
	var recs []*kgo.Record
	for i := from; i < from+n; i++ {
		recs = append(recs, &kgo.Record{Topic: topic, Partition: int32(i) % partitions, Value: fmt.Appendf(nil, "%s-%d", topic, i)})
	}
	return recs
}

// committed gives the group's committed offset, -1 when there is none.
func (b *broker) committed(group, topic string, partition int32) int64 {
	b.t.Helper()
	offs, err := b.adm.FetchOffsets(context.Background(), group)
	if err != nil {
		b.t.Fatal(err)
	}
	o, ok := offs.Lookup(topic, partition)
	if !ok {
		return -1
	}
	return o.At
}

func (b *broker) commit(group, topic string, partition int32, at int64) {
	b.t.Helper()
	offs := make(kadm.Offsets)
	offs.Add(kadm.Offset{Topic: topic, Partition: partition, At: at, LeaderEpoch: -1})
	if err := b.adm.CommitAllOffsets(context.Background(), group, offs); err != nil {
		b.t.Fatal(err)
	}
}

// config is quick where the defaults are for production.
func (b *broker) config(topics ...string) Config {
	return Config{
		Brokers: b.k.ListenAddrs(), Group: "g", Topics: topics, InstanceID: "gw-lane-0",
		BlockBytes: 32 << 10, BlockInterval: 5 * time.Millisecond,
		MetadataRefresh: 50 * time.Millisecond, CommitInterval: 20 * time.Millisecond,
		SessionTimeout: 3 * time.Second, Heartbeat: 100 * time.Millisecond,
		StopGrace: 2 * time.Second, FencedWait: 200 * time.Millisecond, TruncationWait: 300 * time.Millisecond,
	}
}

// running is a receiver at work.
type running struct {
	*Receiver
	t    testing.TB
	stop func() error
}

func start(t testing.TB, cfg Config, log Log) *running {
	t.Helper()
	if testing.Verbose() && cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	r, err := New(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, r)
}

// serve runs a receiver until the test ends.
func serve(t testing.TB, r *Receiver) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	var once bool
	stop := func() error {
		if once {
			return nil
		}
		once = true
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(patience):
			t.Fatal("Run did not return")
			return nil
		}
	}
	t.Cleanup(func() { _ = stop() })
	return &running{Receiver: r, t: t, stop: stop}
}

// awaitStatus polls the status, which changes without a signal.
func (r *running) awaitStatus(what string, cond func(Status) bool) Status {
	r.t.Helper()
	return poll(r.t, what, r.Status, cond)
}

// poll asks until the answer is as wanted.
func poll[T any](t testing.TB, what string, get func() T, cond func(T) bool) T {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		v := get()
		if cond(v) {
			return v
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s; last: %+v", what, v)
		}
	}
}

// partition finds one in a status.
func (s Status) partition(topic string, p int32) PartitionStatus {
	i := slices.IndexFunc(s.Partitions, func(x PartitionStatus) bool { return x.Topic == topic && x.Partition == p })
	if i < 0 {
		return PartitionStatus{State: "none"}
	}
	return s.Partitions[i]
}

// onceInOrder checks that what the log has of a topic is exactly n numbered
// records, each once, and in order within its partition.
func onceInOrder(t testing.TB, l *memLog, topic string, n int) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := make(map[string]bool)
	for k, recs := range l.records {
		if k.topic != topic {
			continue
		}
		last, lastN := int64(-1), -1
		for _, r := range recs {
			var i int
			if _, err := fmt.Sscanf(string(r.Value), topic+"-%d", &i); err != nil {
				t.Fatalf("%s offset %d: value %q", k, r.Offset, r.Value)
			}
			if r.Offset <= last || i <= lastN {
				t.Fatalf("%s: offset %d (number %d) came after %d (%d)", k, r.Offset, i, last, lastN)
			}
			last, lastN = r.Offset, i
			if seen[string(r.Value)] {
				t.Fatalf("%s is there twice", r.Value)
			}
			seen[string(r.Value)] = true
		}
	}
	if len(seen) != n {
		t.Fatalf("%d records of %s, want %d", len(seen), topic, n)
	}
}

var _ Log = (*memLog)(nil)

func recordsOf(l *memLog, topic string, p int32) []record.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.records[key{topic, p}])
}
