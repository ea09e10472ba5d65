package state

import (
	"forebay/internal/record"
)

// MaxHistory is how many gaps, and how many topic changes, are kept: the newest.
const MaxHistory = 65536

type topic struct {
	name       string
	id         record.TopicID
	partitions map[int32]*partition
}

type partition struct {
	topic  *topic
	number int32
	next   int64
	// runs are the offsets that the open batch holds. The next span continues
	// the last of them unless split is set.
	runs  []run
	split bool
	// pending is the unfinished large block that this partition is in, or nil.
	pending *largeBlock
	// seen is the index of the entry that was last checked against this
	// partition: it finds duplicates within an entry. Not replicated.
	seen uint64
}

// run is a run of offsets, both ends included.
type run struct{ first, last int64 }

// TopicReplaced is a topic change that was accepted.
type TopicReplaced struct {
	record.TopicChange
	// Suspect is the first index that may hold records of the new incarnation
	// under the old name (0: none, or not known); Index is the change's own.
	Suspect, Index uint64
	At             int64
}

func (s *State) partition(topic string, number int32) *partition {
	if t := s.topics[topic]; t != nil {
		return t.partitions[number]
	}
	return nil
}

func (s *State) applyBases(e Bases) error {
	if err := checkTime(e.At); err != nil {
		return err
	}
	ids := map[string]record.TopicID{}
	type place struct {
		topic     string
		partition int32
	}
	seen := make(map[place]bool, len(e.Bases))
	for _, b := range e.Bases {
		if b.Topic == "" || b.Partition < 0 || b.Next < 0 {
			return refused("%q/%d cannot begin at %d", b.Topic, b.Partition, b.Next)
		}
		id, known := ids[b.Topic]
		if t := s.topics[b.Topic]; !known && t != nil {
			id, known = t.id, true
		}
		if known && id != b.TopicID {
			return refused("topic %q is %x here, not %x", b.Topic, id, b.TopicID)
		}
		ids[b.Topic] = b.TopicID
		if seen[place{b.Topic, b.Partition}] {
			return refused("%q/%d begins twice", b.Topic, b.Partition)
		}
		seen[place{b.Topic, b.Partition}] = true
	}
	for _, b := range e.Bases {
		t := s.topics[b.Topic]
		if t == nil {
			t = &topic{name: b.Topic, id: b.TopicID, partitions: map[int32]*partition{}}
			s.topics[b.Topic] = t
		}
		if t.partitions[b.Partition] == nil {
			t.partitions[b.Partition] = &partition{topic: t, number: b.Partition, next: b.Next}
		}
	}
	s.tick(e.At)
	return nil
}

// at refuses a span or an advance that does not continue from the position.
func (s *State) at(topic string, number int32, id record.TopicID, base int64) (*partition, error) {
	p := s.partition(topic, number)
	if p == nil {
		return nil, refused("%q/%d has no position yet: its base comes first", topic, number)
	}
	if p.topic.id != id {
		return nil, refused("topic %q is %x here, not %x", topic, p.topic.id, id)
	}
	if p.next != base {
		return nil, refused("%q/%d goes on at %d, not at %d", topic, number, p.next, base)
	}
	return p, nil
}

func (s *State) applyAdvance(e Advance) error {
	if err := checkTime(e.At); err != nil {
		return err
	}
	p, err := s.at(e.Topic, e.Partition, e.TopicID, e.Base)
	if err != nil {
		return err
	}
	gap := record.Gap{
		Topic: p.topic.name, TopicID: e.TopicID, Partition: e.Partition,
		First: e.Base, Last: e.Next - 1, Reason: e.Reason, At: e.At,
	}
	forward := e.Next > e.Base
	switch e.Reason {
	case record.AdvanceControl, record.AdvanceExpired, record.AdvanceSkipped:
	case record.AdvanceTruncated:
		gap.First, gap.Last = e.Next, e.Base-1
		forward = e.Next < e.Base && e.Next >= 0
	default:
		return refused("reason %d of an advance is not known", e.Reason)
	}
	if !forward {
		return refused("%q/%d cannot advance from %d to %d for reason %d", e.Topic, e.Partition, e.Base, e.Next, e.Reason)
	}
	if p.pending != nil {
		s.void(p.pending)
	}
	p.next = e.Next
	if e.Reason != record.AdvanceControl {
		p.split = len(p.runs) > 0
		s.gaps = append(s.gaps, gap)
		if over := len(s.gaps) - MaxHistory; over > 0 {
			s.gaps = s.gaps[over:]
			s.gapsForgotten += uint64(over)
		}
	}
	s.tick(e.At)
	return nil
}

func (s *State) applyTopicChange(index uint64, e TopicChange) error {
	if err := checkTime(e.At); err != nil {
		return err
	}
	t := s.topics[e.Topic]
	if t == nil {
		return refused("topic %q has no positions", e.Topic)
	}
	if t.id != e.Old {
		return refused("topic %q is %x here, not %x", e.Topic, t.id, e.Old)
	}
	if e.New == e.Old {
		return refused("topic %q is %x already", e.Topic, e.New)
	}
	if e.Suspect > index {
		return refused("index %d comes after the change itself", e.Suspect)
	}
	for _, p := range t.partitions {
		if p.pending != nil {
			s.void(p.pending)
		}
		p.next = 0
		p.split = len(p.runs) > 0
	}
	t.id = e.New
	c := TopicReplaced{TopicChange: e.TopicChange, Suspect: e.Suspect, Index: index, At: e.At}
	c.Topic = t.name
	s.changes = append(s.changes, c)
	if over := len(s.changes) - MaxHistory; over > 0 {
		s.changes = s.changes[over:]
	}
	s.tick(e.At)
	return nil
}
