package receiver

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// hideOffsets makes the broker answer for one partition that it has no leader,
// until the test ends that: each of the partitions holds offsets 0 to end-1.
func (b *broker) hideOffsets(partition int32, end int64) (show func()) {
	hidden := make(chan struct{})
	b.k.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
		select {
		case <-hidden:
			return nil, nil, false
		default:
		}
		b.k.KeepControl()
		r := req.(*kmsg.ListOffsetsRequest)
		resp := r.ResponseKind().(*kmsg.ListOffsetsResponse)
		resp.Version = r.Version
		for _, topic := range r.Topics {
			t := kmsg.NewListOffsetsResponseTopic()
			t.Topic = topic.Topic
			for _, p := range topic.Partitions {
				rp := kmsg.NewListOffsetsResponseTopicPartition()
				rp.Partition, rp.Offset, rp.LeaderEpoch = p.Partition, end, -1
				if p.Timestamp == -2 {
					rp.Offset = 0
				}
				if p.Partition == partition {
					rp.ErrorCode = kerr.LeaderNotAvailable.Code
				}
				t.Partitions = append(t.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, t)
		}
		return resp, nil, true
	})
	return func() { close(hidden) }
}

// TestPartitionWithoutLeaderAtTheFormation: a partition of a topic that is
// there when the log is formed has no leader at that moment. When it has one, it
// begins where it would have begun then, not at 0 like one that was added.
func TestPartitionWithoutLeaderAtTheFormation(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		startFrom string
		committed int64
		want      int
	}{
		"at the group's offset": {Earliest, 40, 10},
		"at the end":            {Latest, -1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBroker(t, 2, "a")
			b.produce(numbered("a", 2, 0, 100)...)
			if c.committed >= 0 {
				b.commit("g", "a", 0, c.committed)
				b.commit("g", "a", 1, c.committed)
			}
			show := b.hideOffsets(1, 50)
			l := newMemLog(t)
			cfg := b.config("a")
			cfg.StartFrom = c.startFrom
			r := start(t, cfg, l)
			r.awaitStatus("the partition without a leader", func(s Status) bool {
				return s.partition("a", 1).State == StateNoLeader || s.Problem != ""
			})
			show()
			r.awaitStatus("both partitions", func(s Status) bool {
				return s.partition("a", 0).State == StateConsuming && s.partition("a", 1).State == StateConsuming
			})
			b.produce(numbered("a", 2, 100, 2)...)
			l.await("the newest of both", func() bool {
				return l.positions[key{"a", 0}].Next == 51 && l.positions[key{"a", 1}].Next == 51
			})
			for p := range int32(2) {
				recs := recordsOf(l, "a", p)
				if len(recs) != c.want+1 {
					t.Errorf("partition %d: %d records, want %d", p, len(recs), c.want+1)
				}
			}
		})
	}
}
