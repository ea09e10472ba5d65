package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"forebay/internal/admin"
)

// FAULTS row 30: retention overtakes a gateway that is down. By each policy the
// gap is recorded for what it is, and the other partitions are unhindered.
func TestRetentionOvertakes(t *testing.T) {
	for _, policy := range []string{"pause", "earliest", "latest"} {
		t.Run(policy, func(t *testing.T) {
			b := newBroker(t, sharedKafka(t))
			topic := b.topic("t", 3)
			s := b.settings(topic)
			s.kafka = fmt.Sprintf("offsetOutOfRange = %q", policy)
			g := newGateway(t, s)
			g.up()
			o := newOracle(g, b, topic)
			p := b.producer(topic, 20)
			p.send(t.Context(), 600, mixed)
			o.delivered(30 * time.Second)
			g.kill9()
			from := b.ends(topic)
			p.send(t.Context(), 600, mixed)
			ends := b.ends(topic)
			lost := place{topic, 1}
			to := (from[lost] + ends[lost]) / 2
			o.truth.update()
			b.deleteBelow(map[place]int64{lost: to})

			wants := admin.Gap{Topic: topic, Partition: 1, First: from[lost], Last: to - 1, Reason: "expired"}
			if policy == "latest" {
				wants.Last = ends[lost] - 1
			}
			forget(o.truth.got, lost, wants.First, wants.Last)
			g.start()
			if policy == "pause" {
				o.othersGoOn(lost, from[lost])
				var pending []admin.Gap
				await(t, "the gap to be shown", 20*time.Second, func() bool {
					g.ask(&pending, "gaps", "list")
					return len(pending) == 1
				}, g.show)
				if q := pending[0]; !q.Pending || q.First != wants.First || q.Last != wants.Last {
					t.Errorf("pending gap %+v, want %+v", q, wants)
				}
				if out, errs, code := g.command("gaps", "skip", topic, "0"); code == 0 {
					t.Errorf("a partition that is not out of range was skipped: %s%s", out, errs)
				}
				if out, errs, code := g.command("gaps", "skip", topic, "1"); code != 0 || !strings.Contains(out, fmt.Sprint(wants.Last)) {
					t.Errorf("gaps skip exits %d: %s%s", code, out, errs)
				}
			}
			o.delivered(30 * time.Second)
			var gaps []admin.Gap
			g.ask(&gaps, "gaps", "list")
			if diff := cmp.Diff([]admin.Gap{wants}, gaps, cmpopts.IgnoreFields(admin.Gap{}, "At", "Reason")); diff != "" {
				t.Errorf("gaps (-want +got):\n%s", diff)
			}
			if len(gaps) == 1 && (gaps[0].Reason == "" || gaps[0].At == nil) {
				t.Errorf("the gap says neither when nor why: %+v", gaps[0])
			}
			t.Logf("gap: %+v", gaps)
			p.send(t.Context(), 600, mixed)
			o.delivered(30 * time.Second)
			g.stop()
			o.judge()
		})
	}
}

// forget takes from a ledger what can no longer arrive.
func forget(l ledger, p place, first, last int64) {
	kept := l[p][:0]
	for _, e := range l[p] {
		if e.offset < first || e.offset > last {
			kept = append(kept, e)
		}
	}
	l[p] = kept
}

// othersGoOn waits until all partitions but one are read to their ends, and
// sees that the one stands where it was, out of range.
func (o *oracle) othersGoOn(lost place, at int64) {
	o.t.Helper()
	ends := o.b.ends(o.truth.topics...)
	await(o.t, "the other partitions to go on", 20*time.Second, func() bool {
		for p, end := range ends {
			if got := o.g.partition(p.topic, p.partition); p != lost && got.Next != end {
				return false
			}
		}
		return o.g.partition(lost.topic, lost.partition).State == "outOfRange"
	}, o.g.show)
	if got := o.g.partition(lost.topic, lost.partition); got.Next != at {
		o.t.Errorf("the partition that is out of range stands at %d, want %d", got.Next, at)
	}
}

// Retention that takes what the log has already is no gap; nor is a partition
// whose end is a transaction marker that went with its segment.
func TestRetentionOfWhatIsThereIsNoGap(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 2)
	g := newGateway(t, b.settings(topic))
	g.up()
	o := newOracle(g, b, topic)
	p := b.producer(topic, 21)
	p.send(t.Context(), 300, mixed)
	p.transaction(t.Context(), 50, false, mixed)
	p.transaction(t.Context(), 50, true, mixed)
	p.transaction(t.Context(), 50, false, mixed)
	o.delivered(30 * time.Second)
	for _, running := range []bool{true, false} {
		if !running {
			g.kill9()
		}
		b.deleteBelow(b.ends(topic))
		if !running {
			g.up()
		}
		p.send(t.Context(), 300, mixed)
		p.transaction(t.Context(), 50, false, mixed)
		o.delivered(30 * time.Second)
	}
	var gaps []admin.Gap
	g.ask(&gaps, "gaps", "list")
	if len(gaps) > 0 {
		t.Errorf("gaps: %+v", gaps)
	}
	g.stop()
	o.judge()
}

// FAULTS row 31: a topic deleted and made again is another topic: no old offset
// applies to it, and all of it arrives; whether the gateway ran or not.
func TestATopicMadeAgain(t *testing.T) {
	for _, running := range []bool{true, false} {
		t.Run(fmt.Sprintf("running=%t", running), func(t *testing.T) {
			b := newBroker(t, sharedKafka(t))
			topic, other := b.topic("t", 2), b.topic("other", 1)
			g := newGateway(t, b.settings(topic, other))
			g.up()
			first := newOracle(g, b, topic, other)
			p := b.producer(topic, 22)
			p.send(t.Context(), 1000, mixed)
			first.delivered(30 * time.Second)
			before := first.shelf.got.part(topic).count()
			if !running {
				g.kill9()
			}
			if _, err := b.admin.DeleteTopics(t.Context(), topic); err != nil {
				t.Fatal(err)
			}
			if running { // what happens within one look at the metadata is said, not seen
				g.unready(topic)
			}
			b.create(topic, 2)
			again := b.producer(topic, 23)
			again.send(t.Context(), 3000, mixed) // beyond the old offsets
			if !running {
				g.start()
			}
			b.producer(other, 24).send(t.Context(), 100, mixed)
			second := newOracle(g, b, topic, other)
			second.truth.update()
			want := before + second.truth.got.count()
			await(t, "all of the new topic", 30*time.Second, func() bool {
				g.alive()
				first.shelf.look(t)
				return first.shelf.got.count() >= want
			}, func() string { return fmt.Sprint(first.shelf.got.count(), " of ", want) }, g.show)
			second.caughtUp(30 * time.Second)
			g.stop()
			first.shelf.look(t)
			got := ledger{}
			for p, entries := range first.shelf.got {
				got[p] = entries[len(first.truth.got[p]):]
			}
			same(t, "the topic's second life", second.sorted(), got)
		})
	}
}

// FAULTS row 31: partitions that are added are read from their beginning.
func TestPartitionsAreAdded(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 1)
	s := b.settings(topic)
	s.kafka = `startFrom = "latest"` // is for the formation alone
	g := newGateway(t, s)
	g.up()
	o := newOracle(g, b, topic)
	p := b.producer(topic, 25)
	p.send(t.Context(), 300, mixed)
	o.delivered(30 * time.Second)
	for _, running := range []bool{true, false} {
		partitions := len(b.ends(topic)) + 3
		if !running {
			g.kill9()
		}
		if _, err := b.admin.UpdatePartitions(t.Context(), partitions, topic); err != nil {
			t.Fatal(err)
		}
		fresh := b.producer(topic, 26) // knows of the new partitions
		fresh.send(t.Context(), 2000, mixed)
		if !running {
			g.up()
		}
		await(t, "the new partitions", 30*time.Second, func() bool { return len(g.lane().Partitions) == partitions }, g.show)
		o.delivered(30 * time.Second)
	}
	g.stop()
	o.judge()
}
