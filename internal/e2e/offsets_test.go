package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"forebay/internal/admin"
)

// HARD-CASES "first offsets": where the group stood counts when the gateway is
// formed, startFrom where it stood nowhere, and neither ever again.
func TestFirstOffsets(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 2)
	p := b.producer(topic, 31)
	p.send(t.Context(), 400, mixed)
	s := b.settings(topic)
	s.kafka = `startFrom = "latest"`
	stood := place{topic, 0}
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: topic, Partition: 0, At: 50, LeaderEpoch: -1})
	if err := b.admin.CommitAllOffsets(t.Context(), s.group, offsets); err != nil {
		t.Fatal(err)
	}
	ends := b.ends(topic)
	g := newGateway(t, s)
	g.up()
	o := newOracle(g, b, topic)
	o.truth.update()
	forget(o.truth.got, stood, 0, 49)
	forget(o.truth.got, place{topic, 1}, 0, ends[place{topic, 1}]-1)
	p.send(t.Context(), 400, mixed)
	o.delivered(30 * time.Second)
	g.stop()
	o.judge()
}

// Compacted topics have holes in their offsets, at their ends too: no gaps.
func TestACompactedTopic(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 1, "cleanup.policy=compact", "segment.ms=500", "min.cleanable.dirty.ratio=0.01",
		"delete.retention.ms=0", "min.compaction.lag.ms=0", "max.compaction.lag.ms=500")
	p := b.producer(topic, 32)
	keyed := func(random *rand.Rand) *kgo.Record {
		return &kgo.Record{Key: fmt.Appendf(nil, "k%d", random.IntN(20)), Value: data(random, 300)}
	}
	g := newGateway(t, b.settings(topic))
	g.up()
	o := newOracle(g, b, topic)
	p.send(t.Context(), 100, keyed)
	o.delivered(30 * time.Second)
	g.kill9()
	await(t, "the topic to be compacted", time.Minute, func() bool {
		p.send(t.Context(), 50, keyed) // a segment ends when another record comes
		fresh := b.truth(topic)
		fresh.update()
		return int64(fresh.got.count()) < b.ends(topic)[place{topic, 0}]/2
	})
	p.transaction(t.Context(), 20, false, keyed)
	g.up()
	o.truth.update()
	// What is compacted away from here on may have been read or not: wait for
	// what the last record of each key is, which stays.
	o.caughtUp(30 * time.Second)
	g.stop()
	o.shelf.look(t)
	after := b.truth(topic)
	after.update()
	have := map[entry]int{}
	for _, e := range o.shelf.got[place{topic, 0}] {
		if have[e]++; have[e] > 1 {
			t.Errorf("offset %d is there twice", e.offset)
		}
	}
	for _, e := range after.got[place{topic, 0}] {
		if have[e] == 0 {
			t.Errorf("offset %d is missing or another record", e.offset)
		}
	}
	g.up()
	var gaps []admin.Gap
	g.ask(&gaps, "gaps", "list")
	if len(gaps) > 0 {
		t.Errorf("gaps: %+v", gaps)
	}
	g.stop()
}

// A partition that ends in what compaction has emptied, aborted records whose
// marker is in the next segment, is read to its end too: brokers answer a fetch
// with batches that hold nothing.
func TestAnEndThatCompactionHasEmptied(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 1, "cleanup.policy=compact", "segment.ms=200", "min.cleanable.dirty.ratio=0.01",
		"delete.retention.ms=0", "min.compaction.lag.ms=0", "max.compaction.lag.ms=200")
	g := newGateway(t, b.settings(topic))
	g.up()
	o := newOracle(g, b, topic)
	p := b.producer(topic, 37)
	p.send(t.Context(), 100, mixedWithKeys)
	o.delivered(30 * time.Second)
	g.kill9()
	end := b.ends(topic)[place{topic, 0}]
	p.linger = time.Second // so that the marker begins a segment, and what is before it can be compacted
	p.transaction(t.Context(), 20, false, mixedWithKeys)
	await(t, "the aborted records to be compacted away", time.Minute, func() bool {
		all := b.truth(topic)
		all.uncommitted, all.next[place{topic, 0}] = true, end
		all.update()
		return all.got.count() == 0
	})
	g.up()
	o.caughtUp(20 * time.Second)
	g.stop()
}

func mixedWithKeys(random *rand.Rand) *kgo.Record {
	r := mixed(random)
	r.Key = fmt.Appendf(nil, "k%d", random.IntN(1000)) // a compacted topic takes no nil
	return r
}
