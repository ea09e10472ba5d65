package e2e_test

import (
	"context"
	"testing"
	"time"

	"forebay/internal/e2e/kafka"
)

// endless writes records without transactions until ctx ends: a broker's death
// may end a transaction either way, and a producer's own troubles are not ours.
func (p *producer) endless(ctx context.Context) (wait func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			p.send(p.t.Context(), 100, mixed)
		}
	}()
	return func() { <-done }
}

// FAULTS row 29: the only broker, which is the coordinator too, is killed,
// stopped and restarted; commits fail meanwhile. Work goes on from the log's
// offset within 10 s of each healing.
func TestTheBrokerDies(t *testing.T) {
	cluster := kafka.Start(t, kafka.Options{})
	b := newBroker(t, cluster)
	topic := b.topic("t", 3)
	s := b.settings(topic)
	s.kafka = `sessionTimeout = "6s"`
	g := newGateway(t, s)
	g.up()
	o := newOracle(g, b, topic)
	p := b.producer(topic, 29)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wait := p.endless(ctx)
	o.goesOn(20 * time.Second)
	for round := range size(1, 5) {
		cluster.Kill9(0)
		g.unready(cluster.Brokers()[0])
		cluster.Boot(0)
		healed := time.Now()
		o.goesOn(10 * time.Second)
		t.Logf("round %d: went on %s after the broker served again", round, time.Since(healed).Round(time.Millisecond))
		o.offsets()

		cluster.Pause(0)
		hung, end := context.WithTimeout(t.Context(), 9*time.Second) // longer than the session
		<-hung.Done()
		end()
		cluster.Resume(0)
		healed = time.Now()
		o.goesOn(10 * time.Second)
		t.Logf("round %d: went on %s after the broker was resumed", round, time.Since(healed).Round(time.Millisecond))
		o.offsets()
		g.ready(10 * time.Second)
	}
	// With the broker gone, kill and start the gateway as well.
	cluster.Kill9(0)
	g.kill9()
	g.start()
	g.unready(cluster.Brokers()[0])
	cluster.Boot(0)
	o.goesOn(15 * time.Second)
	cancel()
	wait()
	o.delivered(time.Minute)
	o.acknowledged(p)
	g.stop()
	o.judge()
}

// FAULTS row 29, of three brokers: the group's coordinator is killed and comes
// back; then the leader of a partition.
func TestTheCoordinatorDies(t *testing.T) {
	cluster := kafka.Start(t, kafka.Options{Nodes: 3})
	b := newBroker(t, cluster)
	topic := b.topic("t", 3, "min.insync.replicas=2")
	g := newGateway(t, b.settings(topic))
	g.up()
	o := newOracle(g, b, topic)
	p := b.producer(topic, 30)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wait := p.endless(ctx)
	o.goesOn(20 * time.Second)
	for round := range size(1, 4) {
		coordinators := b.admin.FindGroupCoordinators(t.Context(), g.settings.group)
		if err := coordinators.Error(); err != nil {
			t.Fatal(err)
		}
		dead := int(coordinators[g.settings.group].NodeID) - 1
		cluster.Kill9(dead)
		killed := time.Now()
		o.goesOn(30 * time.Second) // Kafka itself needs its session timeout to notice
		t.Logf("round %d: went on %s after the coordinator was killed", round, time.Since(killed).Round(time.Millisecond))
		o.caughtUpTo(30 * time.Second)
		cluster.Boot(dead)
		o.goesOn(10 * time.Second)
		topics, err := b.admin.ListTopics(t.Context(), topic)
		if err != nil {
			t.Fatal(err)
		}
		leader := int(topics[topic].Partitions[0].Leader) - 1
		cluster.Kill9(leader)
		o.goesOn(30 * time.Second)
		cluster.Boot(leader)
		o.goesOn(10 * time.Second)
	}
	cancel()
	wait()
	o.delivered(time.Minute)
	o.acknowledged(p)
	g.stop()
	o.judge()
}

// caughtUpTo waits until the group has committed what Kafka had when it was asked.
func (o *oracle) caughtUpTo(within time.Duration) {
	o.t.Helper()
	ends := o.b.ends(o.truth.topics...)
	await(o.t, "the commits to go on", within, func() bool {
		committed, _ := o.offsets()
		for p, end := range ends {
			if committed[p] < end {
				return false
			}
		}
		return true
	}, o.g.show)
}
