package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"forebay/internal/e2e/kafka"
)

func millis(ms int64) time.Time { return time.UnixMilli(ms) }

// broker is a cluster as tests speak to it: administration and reading, by
// another library than the program's.
type broker struct {
	t       *testing.T
	cluster *kafka.Cluster
	client  *kgo.Client
	admin   *kadm.Client
	prefix  string // of the names of this test's topics
}

func newBroker(t *testing.T, c *kafka.Cluster) *broker {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Internal()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	name := strings.NewReplacer("/", "-", "#", "-", " ", "-", "=", "-").Replace(t.Name())
	return &broker{t: t, cluster: c, client: client, admin: kadm.NewClient(client), prefix: name}
}

// topic makes a topic for this test, and gives its name.
func (b *broker) topic(name string, partitions int32, configs ...string) string {
	b.t.Helper()
	full := b.prefix + "-" + name
	b.create(full, partitions, configs...)
	return full
}

func (b *broker) create(topic string, partitions int32, configs ...string) {
	b.t.Helper()
	set := map[string]*string{}
	for _, c := range configs {
		key, value, _ := strings.Cut(c, "=")
		set[key] = &value
	}
	// A topic that was just deleted may be there for another moment.
	var err error
	await(b.t, "topic "+topic+" to be made", 20*time.Second, func() bool {
		_, err = b.admin.CreateTopic(b.t.Context(), partitions, -1, set, topic)
		return err == nil
	}, func() string { return fmt.Sprint(err) })
}

// settings are a configuration's for this broker and these topics, in a group of the test's own.
func (b *broker) settings(topics ...string) settings {
	return settings{brokers: b.cluster.Brokers(), group: b.prefix, topics: topics}
}

// retry asks again while brokers come and go.
func (b *broker) retry(what string, ask func() error) {
	b.t.Helper()
	var err error
	await(b.t, what, 30*time.Second, func() bool {
		err = ask()
		return err == nil
	}, func() string { return fmt.Sprint(err) })
}

// ends gives each partition's last stable offset.
func (b *broker) ends(topics ...string) map[place]int64 {
	b.t.Helper()
	var listed kadm.ListedOffsets
	b.retry("the partitions' ends", func() (err error) {
		if listed, err = b.admin.ListCommittedOffsets(b.t.Context(), topics...); err == nil {
			err = listed.Error()
		}
		return err
	})
	out := map[place]int64{}
	listed.Each(func(o kadm.ListedOffset) { out[place{o.Topic, o.Partition}] = o.Offset })
	return out
}

// committed gives the group's committed offsets.
func (b *broker) committed(group string) map[place]int64 {
	b.t.Helper()
	var fetched kadm.OffsetResponses
	b.retry("the group's offsets", func() (err error) {
		if fetched, err = b.admin.FetchOffsets(b.t.Context(), group); err == nil {
			err = fetched.Error()
		}
		return err
	})
	out := map[place]int64{}
	fetched.Each(func(o kadm.OffsetResponse) { out[place{o.Topic, o.Partition}] = o.At })
	return out
}

// deleteBelow deletes the records below these offsets.
func (b *broker) deleteBelow(offsets map[place]int64) {
	b.t.Helper()
	below := kadm.Offsets{}
	for p, at := range offsets {
		below.Add(kadm.Offset{Topic: p.topic, Partition: p.partition, At: at})
	}
	responses, err := b.admin.DeleteRecords(b.t.Context(), below)
	if err == nil {
		err = responses.Error()
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// truth is what Kafka has for a read_committed reader, read once each.
type truth struct {
	b      *broker
	topics []string
	got    ledger
	next   map[place]int64
	// uncommitted makes it what any reader sees, aborted records too.
	uncommitted bool
}

func (b *broker) truth(topics ...string) *truth {
	return &truth{b: b, topics: topics, got: ledger{}, next: map[place]int64{}}
}

// update reads what has come since. No transaction may be open meanwhile.
func (tr *truth) update() {
	t := tr.b.t
	t.Helper()
	ends := tr.b.ends(tr.topics...)
	from, open := map[string]map[int32]kgo.Offset{}, 0
	for p, end := range ends {
		if tr.next[p] >= end {
			continue
		}
		if from[p.topic] == nil {
			from[p.topic] = map[int32]kgo.Offset{}
		}
		from[p.topic][p.partition] = kgo.NewOffset().At(tr.next[p])
		open++
	}
	if open == 0 {
		return
	}
	level := kgo.ReadCommitted()
	if tr.uncommitted {
		level = kgo.ReadUncommitted()
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(tr.b.cluster.Internal()...), kgo.ConsumePartitions(from),
		kgo.FetchIsolationLevel(level), kgo.KeepControlRecords(), kgo.FetchMaxBytes(32<<20), kgo.FetchMaxWait(100*time.Millisecond),
		kgo.BrokerMaxReadBytes(1<<30))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(size(2, 10))*time.Minute)
	defer cancel()
	h := newHasher()
	for open > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("reading the topics: %v", err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			p := place{r.Topic, r.Partition}
			if r.Offset >= ends[p] {
				return
			}
			if tr.next[p] = r.Offset + 1; tr.next[p] == ends[p] {
				open--
			}
			if !r.Attrs.IsControl() {
				tr.got.add(p, entry{r.Offset, h.record(r)})
			}
		})
	}
}

// emptyGroup makes the group's members leave it, as their session would by ending.
func (b *broker) emptyGroup(group string) {
	b.t.Helper()
	described, err := b.admin.DescribeGroups(b.t.Context(), group)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, member := range described[group].Members {
		leave := kadm.LeaveGroup(group).Reason("test")
		if member.InstanceID != nil {
			leave = leave.InstanceIDs(*member.InstanceID)
		}
		if _, err := b.admin.LeaveGroup(b.t.Context(), leave); err != nil {
			b.t.Fatal(err)
		}
	}
	await(b.t, "the group to be empty", 30*time.Second, func() bool {
		described, err := b.admin.DescribeGroups(b.t.Context(), group)
		return err == nil && len(described[group].Members) == 0
	})
}

// moveCommitted moves the committed offsets of a group without members.
func (b *broker) moveCommitted(group string, by int64) {
	b.t.Helper()
	offsets := kadm.Offsets{}
	for p, at := range b.committed(group) {
		offsets.Add(kadm.Offset{Topic: p.topic, Partition: p.partition, At: max(0, at+by), LeaderEpoch: -1})
	}
	responses, err := b.admin.CommitOffsets(b.t.Context(), group, offsets)
	if err == nil {
		err = responses.Error()
	}
	if err != nil {
		b.t.Fatal(err)
	}
}
