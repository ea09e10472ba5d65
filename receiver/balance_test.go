package receiver

import (
	"encoding/json"
	"testing"

	"github.com/IBM/sarama"
	"github.com/google/go-cmp/cmp"
)

// TestLaneIsForEver pins the formula: a changed one would move partitions
// between logs that hold their offsets.
func TestLaneIsForEver(t *testing.T) {
	for _, c := range []struct {
		topic     string
		partition int32
		lanes     uint32
		want      uint32
	}{
		// fnv1a32("a") = 3826002220
		{"a", 0, 1, 0},
		{"a", 0, 3, 3826002220 % 3},
		{"a", 1, 3, (3826002220 + 1) % 3},
		{"a", 2147483647, 7, uint32((uint64(3826002220) + 2147483647) % 7)},
	} {
		if got := Lane(c.topic, c.partition, c.lanes); got != c.want {
			t.Errorf("Lane(%q, %d, %d) = %d, want %d", c.topic, c.partition, c.lanes, got, c.want)
		}
	}
}

func member(t *testing.T, d memberData, topics ...string) sarama.ConsumerGroupMemberMetadata {
	t.Helper()
	data, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return sarama.ConsumerGroupMemberMetadata{Topics: topics, UserData: data}
}

func TestPlan(t *testing.T) {
	// Topic "a" has lanes 1, 2, 0, 1 of 3 for its partitions 0 to 3, and 0, 1, 0, 1 of 2.
	topics := map[string][]int32{"a": {0, 1, 2, 3}}
	for name, c := range map[string]struct {
		members map[string]sarama.ConsumerGroupMemberMetadata
		want    sarama.BalanceStrategyPlan
	}{
		"one lane has all": {
			map[string]sarama.ConsumerGroupMemberMetadata{"m": member(t, memberData{Lanes: 1}, "a")},
			sarama.BalanceStrategyPlan{"m": {"a": {0, 1, 2, 3}}},
		},
		"what is to be skipped stays out": {
			map[string]sarama.ConsumerGroupMemberMetadata{"m": member(t, memberData{Lanes: 1, Skip: map[string][]int32{"a": {1, 2}}}, "a")},
			sarama.BalanceStrategyPlan{"m": {"a": {0, 3}}},
		},
		"a lane without a member is nobody's": {
			map[string]sarama.ConsumerGroupMemberMetadata{
				"x": member(t, memberData{Lane: 1, Lanes: 3}, "a"),
				"y": member(t, memberData{Lane: 2, Lanes: 3}, "a"),
			},
			sarama.BalanceStrategyPlan{"x": {"a": {0, 3}}, "y": {"a": {1}}},
		},
		"of two members of a lane the first has it": {
			map[string]sarama.ConsumerGroupMemberMetadata{
				"x": member(t, memberData{Lanes: 1}, "a"), "y": member(t, memberData{Lanes: 1}, "a"),
			},
			sarama.BalanceStrategyPlan{"x": {"a": {0, 1, 2, 3}}},
		},
		"a foreign member gets nothing": {
			map[string]sarama.ConsumerGroupMemberMetadata{"x": {Topics: []string{"a"}, UserData: []byte("?")}},
			sarama.BalanceStrategyPlan{},
		},
		"a topic that a lane did not ask for": {
			map[string]sarama.ConsumerGroupMemberMetadata{"x": member(t, memberData{Lanes: 1}, "b")},
			sarama.BalanceStrategyPlan{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := (&balancer{}).Plan(c.members, topics)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
