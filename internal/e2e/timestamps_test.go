package e2e_test

import (
	"bufio"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// FAULTS row 34: timestamps that clients get wrong arrive as the broker has
// them. Both Go clients count nanoseconds and wrap 292 years away, so the batch is
// written by hand, and the files are compared with what was written.
func TestTimestampsFarAway(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 1, "message.timestamp.after.max.ms=9223372036854775807", "message.timestamp.before.max.ms=9223372036854775807")
	g := newGateway(t, b.settings(topic))
	g.up()
	now := time.Now().UnixMilli()
	const (
		year9999     = 253402300799999
		microseconds = 1_790_000_000_000_000 // as milliseconds: a producer's mistake
	)
	var want []int64
	for _, batch := range [][]int64{
		{year9999},
		{microseconds},
		{0},
		{now, microseconds, now + 1, year9999, 0, now},
		{0, microseconds, 1},
		{year9999, 0, now, microseconds},
		{microseconds, 0, year9999},
	} {
		b.writeBatch(topic, batch)
		want = append(want, batch...)
	}
	var got []int64
	await(t, "all records", 30*time.Second, func() bool {
		got = timestampsIn(t, g.files())
		return len(got) >= len(want)
	}, func() string { return fmt.Sprint(got) }, g.show)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("timestamps (-want +got):\n%s", diff)
	}
	g.stop()
}

// writeBatch writes one batch of records with these timestamps to partition 0.
func (b *broker) writeBatch(topic string, timestamps []int64) {
	b.t.Helper()
	batch := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, LastOffsetDelta: int32(len(timestamps) - 1), FirstTimestamp: timestamps[0],
		MaxTimestamp: slices.Max(timestamps), ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: int32(len(timestamps)),
	}
	for i, ms := range timestamps {
		r := kmsg.Record{TimestampDelta64: ms - timestamps[0], OffsetDelta: int32(i), Value: fmt.Appendf(nil, "%d", ms)}
		r.Length = int32(len(r.AppendTo(nil)) - 1) // a length of 0 takes one byte
		batch.Records = r.AppendTo(batch.Records)
	}
	batch.Length = int32(len(batch.AppendTo(nil)) - 12)
	batch.CRC = int32(crc32.Checksum(batch.AppendTo(nil)[21:], crc32.MakeTable(crc32.Castagnoli)))
	topics, err := b.admin.ListTopics(b.t.Context(), topic)
	if err != nil {
		b.t.Fatal(err)
	}
	request := kmsg.NewPtrProduceRequest()
	request.Acks, request.TimeoutMillis = -1, 10_000
	request.Topics = []kmsg.ProduceRequestTopic{{
		Topic: topic, TopicID: topics[topic].ID,
		Partitions: []kmsg.ProduceRequestTopicPartition{{Records: batch.AppendTo(nil)}},
	}}
	leader := topics[topic].Partitions[0].Leader
	answer, err := b.client.Broker(int(leader)).RetriableRequest(b.t.Context(), request)
	if err == nil {
		err = kerr.ErrorForCode(answer.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		b.t.Fatalf("writing a batch: %v", err)
	}
}

// timestampsIn gives the timestamps of all lines of a sink, in order.
func timestampsIn(t *testing.T, dir string) []int64 {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "batch-*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var out []int64
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		for text := bufio.NewScanner(f); text.Scan(); {
			_, r, err := parseLine(append(text.Bytes(), '\n'))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, r.Timestamp.UnixMilli())
		}
		f.Close()
	}
	return out
}
