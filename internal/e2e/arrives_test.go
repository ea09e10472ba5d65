package e2e_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The main job: records of every kind, by every codec and by producers that are
// not ours, arrive once, byte for byte, in order; and Kafka's own tool says that
// the group has no lag, of partitions that end in transaction markers too.
func TestEveryRecordArrivesOnce(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	total := size(100_000, 1_000_000)
	jvm := total / 4
	ours, theirs := b.topic("mixed", 4), b.topic("jvm", 2)
	g := newGateway(t, b.settings(ours, theirs))
	g.up()
	o := newOracle(g, b, ours, theirs)
	p := b.producer(ours, 1)
	tool := make(chan error, 1)
	go func() {
		_, err := b.cluster.Tool(t.Context(), "org.apache.kafka.tools.ProducerPerformance",
			"--topic", theirs, "--num-records", fmt.Sprint(jvm), "--record-size", "700", "--throughput", "-1",
			"--producer-props", "bootstrap.servers="+b.cluster.Internal()[0], "compression.type=lz4", "acks=all")
		tool <- err
	}()
	bigs, transactions := total/1000, 20
	p.send(t.Context(), (total-jvm-bigs)/2, mixed)
	for i := range transactions {
		p.transaction(t.Context(), 100, i%3 != 0, mixed)
	}
	for range 10 {
		p.send(t.Context(), bigs/10, big)
		p.send(t.Context(), (total-jvm-bigs)/20, mixed)
	}
	for i := range 8 { // so that partitions end in markers of either kind
		p.transaction(t.Context(), 10, i%2 == 0, mixed)
	}
	if err := <-tool; err != nil {
		t.Fatal(err)
	}
	o.delivered(time.Duration(size(2, 15)) * time.Minute)
	o.acknowledged(p)
	if n := o.truth.got.part(theirs).count(); n != jvm {
		t.Errorf("%d records of the JVM's producer, want %d", n, jvm)
	}
	t.Logf("%d records in %d batches, peak memory %d MiB", o.shelf.got.count(), len(o.shelf.books), g.peakMemory()>>20)
	await(t, "no lag by Kafka's own tool", time.Minute, func() bool { return noLag(t, b, 6) })
	g.stop()
	o.judge()
}

// noLag asks kafka-consumer-groups, which must show all partitions.
func noLag(t *testing.T, b *broker, partitions int) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := b.cluster.Tool(ctx, "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
		"--bootstrap-server", b.cluster.Internal()[0], "--describe", "--group", b.prefix)
	if err != nil {
		t.Fatal(err)
	}
	// GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG …
	rows := regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(b.prefix)+`\s+(\S+)\s+(\d+)\s+(\S+)\s+(\S+)\s+(\S+)`).FindAllStringSubmatch(out, -1)
	if len(rows) != partitions {
		t.Logf("the tool shows %d partitions, want %d:\n%s", len(rows), partitions, out)
		return false
	}
	for _, row := range rows {
		if row[5] != "0" {
			t.Logf("lag: %s", strings.Join(row[1:], " "))
			return false
		}
	}
	return true
}
