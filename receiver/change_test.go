package receiver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"forebay/internal/record"
)

// TestRebalancesLoseAndRepeatNothing: another lane's member comes and goes
// under load; each lane gets its own partitions, once.
func TestRebalancesLoseAndRepeatNothing(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 6, "a")
	cfg := b.config("a")
	cfg.Lanes = 2
	first := newMemLog(t)
	start(t, cfg, first)
	other := cfg
	other.Lane, other.InstanceID = 1, "gw-lane-1"
	other.SessionTimeout = 700 * time.Millisecond
	second := newMemLog(t)
	owned := [2]int{}
	for p := range int32(6) {
		owned[Lane("a", p, 2)]++
	}
	for round := range 4 {
		r := start(t, other, second)
		b.produce(numbered("a", 6, round*1200, 600)...)
		second.await("the second lane's share", func() bool { return second.total() == (round*1200+600)/6*owned[1] })
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		b.produce(numbered("a", 6, round*1200+600, 600)...)
		first.await("the first lane's share", func() bool { return first.total() == (round+1)*1200/6*owned[0] })
	}
	r := start(t, other, second)
	second.await("all of the second lane", func() bool { return second.total() == 4800/6*owned[1] })
	onceInOrder(t, first, "a", 4800/6*owned[0])
	onceInOrder(t, second, "a", 4800/6*owned[1])
	if first.refusals+second.refusals > 0 {
		t.Errorf("%d and %d blocks were refused: a session began before the one before was settled", first.refusals, second.refusals)
	}
	if s := r.Status(); len(s.Partitions) != owned[1] {
		t.Errorf("%d partitions in the status of lane 1, want %d", len(s.Partitions), owned[1])
	}
}

func TestSessionsEndingUnderLoad(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 3, "a")
	l := newMemLog(t)
	r := start(t, b.config("a"), l)
	for round := range 10 {
		b.produce(numbered("a", 3, round*500, 500)...)
		l.await("some of the round", func() bool { return l.total() > round*500 })
		_, session := r.current()
		r.rejoin(session, "the test says so")
	}
	l.await("all", func() bool { return l.total() == 5000 })
	onceInOrder(t, l, "a", 5000)
	if l.refusals > 0 {
		t.Errorf("%d blocks were refused", l.refusals)
	}
}

func TestExpiredOffsets(t *testing.T) {
	t.Parallel()
	for policy, next := range map[string]int64{Pause: 100, Earliest: 130, Latest: 150} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			b := newBroker(t, 2, "a")
			b.produce(numbered("a", 2, 0, 200)...)
			l := newMemLog(t)
			cfg := b.config("a")
			cfg.OffsetOutOfRange = policy
			r := start(t, cfg, l)
			l.await("200 records", func() bool { return l.total() == 200 })
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
			b.produce(numbered("a", 2, 200, 100)...)
			if err := b.k.DeleteRecords("a", 0, 130); err != nil {
				t.Fatal(err)
			}
			r = start(t, cfg, l)
			l.await("the other partition", func() bool { return len(l.records[key{"a", 1}]) == 150 })
			if policy == Pause {
				s := r.awaitStatus("the pause", func(s Status) bool { return s.partition("a", 0).State == StateOutOfRange })
				if p := s.partition("a", 0); !strings.Contains(p.Detail, "100 to 129") || p.Next != 100 || p.End != 150 {
					t.Errorf("status %+v", p)
				}
				if _, err := r.Skip(t.Context(), "a", 1); !errors.Is(err, ErrNotOutOfRange) {
					t.Errorf("skipping a healthy partition: %v", err)
				}
				a, err := r.Skip(t.Context(), "a", 0)
				if err != nil || a.Base != 100 || a.Next != 130 {
					t.Fatalf("skip: %+v, %v", a, err)
				}
				next = 130
			}
			l.await("the gap", func() bool { return len(l.advances) == 1 })
			want := record.Advance{Topic: "a", TopicID: l.ids["a"], Base: 100, Next: next, Reason: record.AdvanceExpired}
			if diff := cmp.Diff(want, l.advances[0]); diff != "" {
				t.Error(diff)
			}
			b.produce(numbered("a", 2, 300, 2)...)
			l.await("the end", func() bool { return l.positions[key{"a", 0}].Next == 151 })
			if got := len(recordsOf(l, "a", 0)); got != 100+151-int(next) {
				t.Errorf("%d records", got)
			}
			if s := r.Status(); len(s.Notes) == 0 || !strings.Contains(s.Notes[0].Text, "gap in a/0") {
				t.Errorf("notes %+v", s.Notes)
			}
		})
	}
}

// TestRetentionOvertakesARunningClaim: the claim is held while its records
// go; the session that dies of it must not take the other partition along.
func TestRetentionOvertakesARunningClaim(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 2, "a")
	l := newMemLog(t)
	r := start(t, b.config("a"), l)
	b.produce(numbered("a", 2, 0, 20)...)
	l.await("records", func() bool { return l.total() == 20 })
	l.hold("wal.maxBytes")
	r.awaitStatus("the pause", func(s Status) bool { return s.partition("a", 0).State == StatePaused })
	// A fetch that was already waiting when the pause came may still bring one batch.
	b.produce(numbered("a", 2, 20, 2)...)
	for i := range 10 {
		b.produce(numbered("a", 2, 22+i*10, 10)...)
	}
	if err := b.k.DeleteRecords("a", 0, 50); err != nil {
		t.Fatal(err)
	}
	l.hold("")
	r.awaitStatus("the partition to be kept out", func(s Status) bool { return s.partition("a", 0).State == StateOutOfRange })
	b.produce(numbered("a", 2, 122, 100)...)
	l.await("the other partition", func() bool { return len(l.records[key{"a", 1}]) == 111 })
}

func TestTruncatedPartition(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 2, "a")
	b.produce(numbered("a", 2, 0, 20)...)
	l := newMemLog(t)
	info := b.k.TopicInfo("a")
	// The log has been further than Kafka now is, as after an unclean election.
	if err := l.SetBases(t.Context(), []record.Base{
		{Topic: "a", TopicID: record.TopicID(info.TopicID), Next: 15},
		{Topic: "a", TopicID: record.TopicID(info.TopicID), Partition: 1},
	}); err != nil {
		t.Fatal(err)
	}
	cfg := b.config("a")
	cfg.OffsetOutOfRange = Earliest
	start(t, cfg, l)
	l.await("the other partition", func() bool { return len(l.records[key{"a", 1}]) == 10 })
	l.await("the move back", func() bool { return len(l.advances) == 1 })
	if a := l.advances[0]; a.Reason != record.AdvanceTruncated || a.Base != 15 || a.Next != 10 {
		t.Errorf("advance %+v", a)
	}
	b.produce(numbered("a", 2, 20, 20)...)
	l.await("what came after", func() bool { return l.total() == 30 })
}

func TestTopicMadeAgain(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 2, "a", "b")
	b.produce(numbered("a", 2, 0, 100)...)
	l := newMemLog(t)
	r := start(t, b.config("a", "b"), l)
	l.await("the first incarnation", func() bool { return l.total() == 100 })
	old := l.ids["a"]
	if err := b.k.DeleteTopic("a"); err != nil {
		t.Fatal(err)
	}
	if err := b.k.CreateTopic("a", 2, nil); err != nil {
		t.Fatal(err)
	}
	l.await("the change", func() bool { return len(l.changes) == 1 })
	c := l.changes[0]
	if c.Old != old || c.New == old || c.Topic != "a" {
		t.Errorf("change %+v", c)
	}
	// This log counts blocks as entries: none came in after the last look.
	if s := l.suspects[0]; s == 0 || s > uint64(l.blocks)+1 {
		t.Errorf("suspect from entry %d on, with %d blocks in the log", s, l.blocks)
	}
	b.cl.PurgeTopicsFromClient("a")
	fresh := numbered("a", 2, 100, 60)
	b.produce(append(fresh, numbered("b", 2, 0, 10)...)...)
	l.await("the second incarnation, from 0", func() bool { return l.total() == 170 })
	if pos := l.positions[key{"a", 1}]; pos.Next != 30 || pos.TopicID != c.New {
		t.Errorf("position %+v", pos)
	}
	if s := r.Status(); len(s.Notes) == 0 || !strings.Contains(s.Notes[0].Text, "deleted and made again") || !strings.Contains(s.Notes[0].Text, "last seen as before at") {
		t.Errorf("notes %+v", s.Notes)
	}
}

func TestPartitionsAndTopicsAreAdded(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 1, "a")
	b.produce(numbered("a", 1, 0, 10)...)
	l := newMemLog(t)
	r := start(t, b.config("a", "later"), l)
	l.await("the one partition", func() bool { return l.total() == 10 })
	r.awaitStatus("the missing topic", func(s Status) bool { return strings.Contains(s.Problem, `topic "later" does not exist`) })
	if _, err := b.adm.UpdatePartitions(t.Context(), 3, "a"); err != nil {
		t.Fatal(err)
	}
	b.cl.Close()
	b.cl = b.client() // one that knows of them from the start
	b.produce(numbered("a", 3, 10, 30)...)
	l.await("the new partitions, from 0", func() bool { return l.total() == 40 })
	if err := b.k.CreateTopic("later", 2, nil); err != nil {
		t.Fatal(err)
	}
	b.produce(numbered("later", 2, 0, 10)...)
	l.await("the new topic", func() bool { return l.total() == 50 })
	if s := r.Status(); s.Problem != "" {
		t.Errorf("problem %q", s.Problem)
	}
}

// TestFencedReceiverWaits: a second process with the same instance id takes the
// place; the first says so, waits, and takes it back only as its term still stands.
func TestFencedReceiverWaits(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 2, "a")
	l := newMemLog(t)
	cfg := b.config("a")
	cfg.FencedWait = 500 * time.Millisecond
	first := start(t, cfg, l)
	b.produce(numbered("a", 2, 0, 10)...)
	l.await("records", func() bool { return l.total() == 10 })
	second := start(t, cfg, l)
	s := first.awaitStatus("being fenced", func(s Status) bool { return s.Problem != "" })
	if !strings.Contains(s.Problem, "gw-lane-0") || s.Joined {
		t.Errorf("status %+v", s)
	}
	if err := second.stop(); err != nil {
		t.Fatal(err)
	}
	first.awaitStatus("its place back", func(s Status) bool { return s.Problem == "" && s.partition("a", 1).State == StateConsuming })
	b.produce(numbered("a", 2, 10, 100)...)
	l.await("all", func() bool { return l.total() == 110 })
	onceInOrder(t, l, "a", 110)
}

func TestBrokerRestart(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 2, "a")
	l := newMemLog(t)
	start(t, b.config("a"), l)
	b.produce(numbered("a", 2, 0, 100)...)
	l.await("records", func() bool { return l.total() == 100 })
	node, _, err := b.k.AddNode(-1, 0)
	if err != nil {
		t.Fatal(err)
	}

	for p := range int32(2) {
		if err := b.k.MoveTopicPartition("a", p, node); err != nil {
			t.Fatal(err)
		}
	}
	b.k.RehashCoordinators()
	b.produce(numbered("a", 2, 100, 1000)...)
	l.await("the rest, from another broker", func() bool { return l.total() == 1100 })
	onceInOrder(t, l, "a", 1100)
	poll(t, "the commit", func() int64 { return b.committed("g", "a", 0) }, func(o int64) bool { return o == 550 })
}

// TestFarTimestampsFromABatch: the deltas as they are on the wire, which no
// producer library at hand would write.
func TestFarTimestampsFromABatch(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 1, "a")
	const now = 1_763_700_000_123
	want := []int64{now, now * 1000, -now * 1000, now + 1, 0}
	var raw []byte
	for i, ms := range want {
		rec := kmsg.Record{TimestampDelta64: ms - now, OffsetDelta: int32(i), Value: fmt.Appendf(nil, "a-%d", i)}
		body := rec.AppendTo(nil)[1:] // without the length, which is 0 and one byte long
		raw = append(binary.AppendVarint(raw, int64(len(body))), body...)
	}
	batch := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, LastOffsetDelta: int32(len(want) - 1), FirstTimestamp: now, MaxTimestamp: now * 1000,
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: int32(len(want)), Records: raw,
	}
	wire := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(wire[8:], uint32(len(wire)-12))
	binary.BigEndian.PutUint32(wire[17:], crc32.Checksum(wire[21:], crc32.MakeTable(crc32.Castagnoli)))
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis, req.Version = -1, 5000, 9
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic = "a"
	part := kmsg.NewProduceRequestTopicPartition()
	part.Records = wire
	topic.Partitions = append(topic.Partitions, part)
	req.Topics = append(req.Topics, topic)
	cl := b.client(kgo.MaxVersions(kversion.V2_8_0()))
	defer cl.Close()
	resp, err := req.RequestWith(t.Context(), cl.Broker(0))
	if err != nil || resp.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Fatalf("%v %+v", err, resp)
	}
	l := newMemLog(t)
	start(t, b.config("a"), l)
	l.await("the batch", func() bool { return l.total() == len(want) })
	for i, rec := range recordsOf(l, "a", 0) {
		if rec.Timestamp != want[i] {
			t.Errorf("record %d: timestamp %d, want %d", i, rec.Timestamp, want[i])
		}
	}
}
