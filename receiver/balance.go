package receiver

import (
	"encoding/json"
	"hash/fnv"
	"slices"

	"github.com/IBM/sarama"
)

// strategyName is what the members of a gateway's group agree on. Members of
// another kind cannot join the group beside them, which is meant.
const strategyName = "forebay-lanes"

// Lane tells which lane a partition belongs to, for ever.
func Lane(topic string, partition int32, lanes uint32) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(topic)) // a hash never fails
	return uint32((uint64(h.Sum32()) + uint64(partition)) % uint64(max(lanes, 1)))
}

// memberData is what a member tells the group's leader when it joins.
type memberData struct {
	Lane  uint32 `json:"lane"`
	Lanes uint32 `json:"lanes"`
	// Skip lists partitions that the lane must not get now: a claim that
	// starts out of range would end the whole session.
	Skip map[string][]int32 `json:"skip,omitempty"`
	// Seen is a fingerprint of the topics as the member last saw them, and
	// Nonce counts assignments that did not fit: either one changed makes Kafka
	// rebalance when the member joins again, whoever leads the group.
	Seen  string `json:"seen,omitempty"`
	Nonce uint64 `json:"nonce,omitempty"`
}

// balancer gives each lane's partitions to its member. The partitions of a lane
// without a member stay unassigned. It implements sarama.BalanceStrategy and
// sarama.SubscriptionUserDataBalanceStrategy.
type balancer struct {
	data func() memberData
}

func (b *balancer) Name() string { return strategyName }

// SubscriptionUserData is asked before every join.
func (b *balancer) SubscriptionUserData([]string) ([]byte, error) { return json.Marshal(b.data()) }

// AssignmentData adds nothing: sarama would send it back as our user data.
func (b *balancer) AssignmentData(string, map[string][]int32, int32) ([]byte, error) { return nil, nil }

// Plan runs on the group's leader. It is a pure function of what the members
// said: of two members with one lane, the first by id has it.
func (b *balancer) Plan(members map[string]sarama.ConsumerGroupMemberMetadata, topics map[string][]int32) (sarama.BalanceStrategyPlan, error) {
	type owner struct {
		id     string
		topics []string
		skip   map[string][]int32
	}
	var lanes uint32
	said := make(map[string]memberData, len(members))
	for id, meta := range members {
		var d memberData
		if json.Unmarshal(meta.UserData, &d) != nil || d.Lanes == 0 {
			continue // not one of ours: it gets nothing
		}
		said[id] = d
		lanes = max(lanes, d.Lanes)
	}
	owners := make(map[uint32]owner, len(said))
	for _, id := range sortedKeys(said) {
		d := said[id]
		if _, taken := owners[d.Lane]; !taken && d.Lanes == lanes {
			owners[d.Lane] = owner{id: id, topics: members[id].Topics, skip: d.Skip}
		}
	}
	plan := make(sarama.BalanceStrategyPlan, len(members))
	for topic, partitions := range topics {
		for _, p := range partitions {
			o, ok := owners[Lane(topic, p, lanes)]
			if ok && slices.Contains(o.topics, topic) && !slices.Contains(o.skip[topic], p) {
				plan.Add(o.id, topic, p)
			}
		}
	}
	return plan, nil
}
