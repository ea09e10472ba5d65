package node

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// broker is an in-process Kafka with a producer and an admin client.
type broker struct {
	t     testing.TB
	k     *kfake.Cluster
	cl    *kgo.Client
	admin *kadm.Client
}

func newBroker(t testing.TB, partitions int32, topics ...string) *broker {
	t.Helper()
	k, err := kfake.NewCluster(
		kfake.NumBrokers(1), kfake.SeedTopics(partitions, topics...), kfake.GroupMinSessionTimeout(100*time.Millisecond),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}),
	)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0), kgo.MetadataMinAge(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close(); k.Close() })
	return &broker{t: t, k: k, cl: cl, admin: kadm.NewClient(cl)}
}

// produce writes one value after the other, and waits for them.
func (b *broker) produce(topic string, partition int32, values ...string) {
	b.t.Helper()
	var recs []*kgo.Record
	for i, v := range values {
		recs = append(recs, &kgo.Record{Topic: topic, Partition: partition, Value: []byte(v), Timestamp: time.UnixMilli(int64(i))})
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.cl.ProduceSync(ctx, recs...).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
}

// numbers makes n values that say their number.
func numbers(from, n int) []string {
	var values []string
	for i := from; i < from+n; i++ {
		values = append(values, fmt.Sprintf("value-%d", i))
	}
	return values
}

// committed gives the group's committed offset, -1 when there is none.
func (b *broker) committed(topic string, partition int32) int64 {
	b.t.Helper()
	offsets, err := b.admin.FetchOffsets(context.Background(), "forebay")
	if err != nil {
		b.t.Fatal(err)
	}
	o, ok := offsets.Lookup(topic, partition)
	if !ok {
		return -1
	}
	return o.At
}

// expire deletes what lies below an offset.
func (b *broker) expire(topic string, partition int32, below int64) {
	b.t.Helper()
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: topic, Partition: partition, At: below})
	if _, err := b.admin.DeleteRecords(context.Background(), offsets); err != nil {
		b.t.Fatal(err)
	}
}
