package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kadm"
)

// stranger is a member of a gateway's group that says it is of another lane
// count, so that it gets nothing: all it does is to make the group rebalance.
type stranger struct{ joined chan struct{} }

func (s *stranger) Setup(sarama.ConsumerGroupSession) error   { s.joined <- struct{}{}; return nil }
func (s *stranger) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (s *stranger) ConsumeClaim(session sarama.ConsumerGroupSession, _ sarama.ConsumerGroupClaim) error {
	<-session.Context().Done()
	return nil
}

// Name is that of the program's strategy: Kafka lets no other kind of member in.
func (s *stranger) Name() string { return "forebay-lanes" }

func (s *stranger) Plan(map[string]sarama.ConsumerGroupMemberMetadata, map[string][]int32) (sarama.BalanceStrategyPlan, error) {
	return nil, errors.New("the gateway was there first, and leads the group")
}

func (s *stranger) AssignmentData(string, map[string][]int32, int32) ([]byte, error) { return nil, nil }

func (s *stranger) SubscriptionUserData([]string) ([]byte, error) {
	return json.Marshal(map[string]string{"i-am": "a stranger"})
}

// visit joins a group as a stranger, and leaves it again: two rebalances.
func (b *broker) visit(group, topic string) {
	b.t.Helper()
	s := &stranger{joined: make(chan struct{}, 100)}
	config := sarama.NewConfig()
	config.Version = sarama.V2_8_0_0
	config.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{s}
	member, err := sarama.NewConsumerGroup(b.cluster.Internal(), group, config)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error, 1)
	go func() { done <- member.Consume(ctx, []string{topic}, s) }()
	select {
	case <-s.joined:
	case err := <-done:
		b.t.Errorf("a second member could not join the group: %v", err)
		done <- nil
	case <-time.After(30 * time.Second):
		b.t.Error("a second member did not get into the group within 30 s")
	}
	cancel()
	_ = <-done // of its session's end
	if err := member.Close(); err != nil {
		b.t.Error(err)
	}
}

// FAULTS row 28: a rebalance every few seconds, by a second member that comes and
// goes and by the removal of the gateway's own membership: no gap, no repeat.
func TestRebalances(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 3)
	g := newGateway(t, b.settings(topic))
	g.up()
	o := newOracle(g, b, topic)
	p := b.producer(topic, 27)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wait := p.stream(ctx, 3000, mixed)
	await(t, "the first records", 20*time.Second, func() bool { o.shelf.look(t); return o.shelf.got.count() > 0 }, g.show)
	rounds, before := size(3, 20), g.generation()
	for i := range rounds {
		b.visit(g.settings.group, topic)
		if i%2 == 1 { // what an operator's tool does
			sessions := g.generation()
			leave := kadm.LeaveGroup(g.settings.group).InstanceIDs("forebay-lane-0").Reason("test")
			if _, err := b.admin.LeaveGroup(t.Context(), leave); err != nil {
				t.Fatal(err)
			}
			// Its old claims go on until it hears of it; the next visitor must not come first.
			await(t, "the gateway to join again", 30*time.Second, func() bool { return g.generation() > sessions }, g.show)
		}
		o.offsets()
		o.goesOn(15 * time.Second)
	}
	if sessions := g.generation() - before; sessions < float64(rounds) {
		t.Errorf("%v sessions in %d rounds: it did not rebalance", sessions, rounds)
	}
	t.Logf("%v sessions in %d rounds", g.generation()-before, rounds)
	cancel()
	wait()
	o.delivered(time.Minute)
	o.acknowledged(p)
	g.stop()
	o.judge()
}

// goesOn waits until records that come now are in the files.
func (o *oracle) goesOn(within time.Duration) {
	o.t.Helper()
	ends := o.b.ends(o.truth.topics...)
	await(o.t, "new records to arrive", within, func() bool {
		o.g.alive()
		o.shelf.look(o.t)
		for p, end := range ends {
			entries := o.shelf.got[p]
			if end > 0 && o.g.partition(p.topic, p.partition).Next < end || len(entries) == 0 {
				return false
			}
		}
		return true
	}, o.g.show)
}

// HARD-CASES "a deposed leader that joins late": another process under the same
// name of a gateway takes the place in the group. The first says so, loses and
// repeats nothing, and takes its place back.
func TestAnotherGatewayUnderTheSameName(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 2)
	g := newGateway(t, b.settings(topic))
	g.up()
	o := newOracle(g, b, topic)
	p := b.producer(topic, 28)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wait := p.stream(ctx, 1000, mixed)
	await(t, "the first records", 20*time.Second, func() bool { o.shelf.look(t); return o.shelf.got.count() > 0 }, g.show)
	other := newGateway(t, b.settings(topic))
	other.start()
	g.said("another process joined group", 30*time.Second)
	other.stop()
	g.ready(30 * time.Second)
	o.goesOn(20 * time.Second)
	cancel()
	wait()
	o.delivered(time.Minute)
	g.stop()
	o.judge()
}
