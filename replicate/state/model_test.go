package state

import (
	"fmt"
	"slices"

	"forebay/internal/record"
)

// model says in the plainest way what a lane's state must be: it keeps every
// record, and every list in full.
type model struct {
	term      uint64
	positions map[place]record.Position
	open      []rec
	batches   map[uint64][]rec // cut and not released
	lastSeq   uint64
	released  uint64
	clockCut  int64
	cutAt     map[uint64]int64
	sinks     map[string]*modelSink
	parked    map[uint64]*modelParked
	lastID    uint64
	pending   []*modelLarge
	copying   map[uint64]Copy // the last part that came
	gaps      []record.Gap
	// accepted are all records of the log, to find repeats; those that a
	// truncation of Kafka took back may come again.
	accepted map[string]bool
}

// rec is a record of the log: which one, and the entries that hold it.
type rec struct {
	id      record.RecordID
	topicID record.TopicID
	bytes   int64
	indexes []uint64
}

type modelSink struct {
	cursor          uint64
	paused          bool
	excluded        []record.RecordID
	parked, dropped int64
}

type modelParked struct {
	seq    uint64 // 0 once it was copied
	record record.RecordID
}

type modelLarge struct {
	claims []claim
	size   int
	parts  int
	have   []uint64
}

func newModel() *model {
	return &model{
		positions: map[place]record.Position{}, batches: map[uint64][]rec{}, cutAt: map[uint64]int64{},
		sinks: map[string]*modelSink{}, parked: map[uint64]*modelParked{}, copying: map[uint64]Copy{}, accepted: map[string]bool{},
	}
}

// proposal is an entry with what the model needs to know of it.
type proposal struct {
	entry  any // as in entries.go; nil for blocks
	claims []claim
	size   int // of each value
	part   int
	parts  int // 0: a whole block
	bytes  []byte
}

// apply says whether the proposal is accepted, and takes it in.
func (m *model) apply(index uint64, p *proposal) bool {
	switch e := p.entry.(type) {
	case nil:
		return m.block(index, p)
	case Begin:
		if e.Term <= m.term {
			return false
		}
		m.term, m.pending = e.Term, nil
		clear(m.copying)
		return true
	case Bases:
		return m.bases(e)
	case Advance:
		return m.advance(e)
	case TopicChange:
		return m.topicChange(e)
	case Cut:
		return m.cut(e)
	case SinkAdd:
		if m.sinks[e.Name] != nil {
			return false
		}
		m.sinks[e.Name] = &modelSink{cursor: m.released + 1}
		if e.Newest {
			m.sinks[e.Name].cursor = m.lastSeq + 1
		}
		return true
	case SinkRemove:
		if k := m.sinks[e.Name]; k == nil || k.cursor != e.GivesUpFrom {
			return false
		}
		delete(m.sinks, e.Name)
		return true
	case SinkPause:
		if m.sinks[e.Name] == nil {
			return false
		}
		m.sinks[e.Name].paused = e.Paused
		return true
	case Done:
		if !m.atCursor(e.Sink, e.Term, e.Seq) {
			return false
		}
		m.sinks[e.Sink].cursor++
		m.sinks[e.Sink].excluded = nil
		return true
	case Refuse:
		return m.refuse(e)
	case Copy:
		return m.copy(e)
	case Discard:
		for _, id := range e.IDs {
			if m.parked[id] == nil {
				return false
			}
		}
		for _, id := range e.IDs {
			delete(m.parked, id)
			delete(m.copying, id)
		}
		return true
	case Release:
		return m.release(e)
	case Void:
		return m.voidBatches(e)
	}
	panic(fmt.Sprintf("the model knows no %T", p.entry))
}

func (m *model) fits(claims []claim) bool {
	for _, c := range claims {
		if pos, ok := m.positions[place{c.topic, c.partition}]; !ok || pos.TopicID != c.id || pos.Next != c.base {
			return false
		}
	}
	return true
}

func (m *model) block(index uint64, p *proposal) bool {
	if p.parts > 0 && p.part > 0 {
		for _, b := range m.pending {
			if b.parts == p.parts && len(b.have) == p.part && fmt.Sprint(b.claims) == fmt.Sprint(p.claims) {
				if b.have = append(b.have, index); len(b.have) == b.parts {
					m.accept(b.claims, b.size, b.have)
				}
				return true
			}
		}
		return false
	}
	if !m.fits(p.claims) {
		return false
	}
	if p.parts == 0 {
		m.accept(p.claims, p.size, []uint64{index})
		return true
	}
	for _, c := range p.claims {
		m.void(func(d claim) bool { return c.topic == d.topic && c.partition == d.partition })
	}
	m.pending = append(m.pending, &modelLarge{claims: p.claims, size: p.size, parts: p.parts, have: []uint64{index}})
	return true
}

// void gives up the large blocks that have such a claim.
func (m *model) void(such func(claim) bool) {
	m.pending = slices.DeleteFunc(m.pending, func(b *modelLarge) bool { return slices.ContainsFunc(b.claims, such) })
}

func (m *model) accept(claims []claim, size int, indexes []uint64) {
	for _, c := range claims {
		m.void(func(d claim) bool { return c.topic == d.topic && c.partition == d.partition })
		for _, o := range c.offsets {
			r := rec{record.RecordID{Topic: c.topic, Partition: c.partition, Offset: o}, c.id, int64(size), indexes}
			name := fmt.Sprint(r.id, r.topicID)
			if m.accepted[name] {
				panic("record " + name + " enters the log twice")
			}
			m.accepted[name] = true
			m.open = append(m.open, r)
		}
		m.positions[place{c.topic, c.partition}] = record.Position{TopicID: c.id, Next: c.offsets[len(c.offsets)-1] + 1}
	}
}

func (m *model) topicID(topic string) (record.TopicID, bool) {
	for p, pos := range m.positions {
		if p.topic == topic {
			return pos.TopicID, true
		}
	}
	return record.TopicID{}, false
}

func (m *model) bases(e Bases) bool {
	for _, b := range e.Bases {
		if id, ok := m.topicID(b.Topic); ok && id != b.TopicID {
			return false
		}
	}
	for _, b := range e.Bases {
		if _, ok := m.positions[place{b.Topic, b.Partition}]; !ok {
			m.positions[place{b.Topic, b.Partition}] = record.Position{TopicID: b.TopicID, Next: b.Next}
		}
	}
	return true
}

func (m *model) advance(e Advance) bool {
	at := place{e.Topic, e.Partition}
	if pos, ok := m.positions[at]; !ok || pos.TopicID != e.TopicID || pos.Next != e.Base {
		return false
	}
	m.void(func(c claim) bool { return c.topic == e.Topic && c.partition == e.Partition })
	m.positions[at] = record.Position{TopicID: e.TopicID, Next: e.Next}
	gap := record.Gap{Topic: e.Topic, TopicID: e.TopicID, Partition: e.Partition, First: e.Base, Last: e.Next - 1, Reason: e.Reason, At: e.At}
	switch e.Reason {
	case record.AdvanceControl:
		return true
	case record.AdvanceTruncated:
		gap.First, gap.Last = e.Next, e.Base-1
		for o := e.Next; o < e.Base; o++ {
			delete(m.accepted, fmt.Sprint(record.RecordID{Topic: e.Topic, Partition: e.Partition, Offset: o}, e.TopicID))
		}
	}
	m.gaps = append(m.gaps, gap)
	return true
}

func (m *model) topicChange(e TopicChange) bool {
	if id, ok := m.topicID(e.Topic); !ok || id != e.Old {
		return false
	}
	m.void(func(c claim) bool { return c.topic == e.Topic })
	for p := range m.positions {
		if p.topic == e.Topic {
			m.positions[p] = record.Position{TopicID: e.New}
		}
	}
	return true
}

func (m *model) cut(e Cut) bool {
	if e.Term != m.term || e.Seq != m.lastSeq+1 || len(m.open) == 0 {
		return false
	}
	m.lastSeq++
	m.batches[m.lastSeq], m.open = m.open, nil
	m.clockCut = max(e.At, m.clockCut+1)
	m.cutAt[m.lastSeq] = m.clockCut
	return true
}

func (m *model) atCursor(sink string, term, seq uint64) bool {
	k := m.sinks[sink]
	return term == m.term && k != nil && k.cursor == seq && seq <= m.lastSeq
}

func (m *model) refuse(e Refuse) bool {
	if !m.atCursor(e.Sink, e.Term, e.Seq) {
		return false
	}
	k := m.sinks[e.Sink]
	for _, r := range e.Refusals {
		if slices.Contains(k.excluded, r.RecordID) {
			continue
		}
		k.excluded = append(k.excluded, r.RecordID)
		if e.Drop {
			k.dropped++
			continue
		}
		k.parked++
		m.lastID++
		m.parked[m.lastID] = &modelParked{seq: e.Seq, record: r.RecordID}
	}
	return true
}

func (m *model) copy(e Copy) bool {
	ref := m.parked[e.ID]
	if ref == nil {
		return false
	}
	if last, ok := m.copying[e.ID]; e.Part > 0 && (!ok || last.Part+1 != e.Part || last.Parts != e.Parts || last.Checksum != e.Checksum) {
		return false
	}
	if m.copying[e.ID] = e; e.Part+1 == e.Parts {
		delete(m.copying, e.ID)
		ref.seq = 0
	}
	return true
}

func (m *model) voidBatches(e Void) bool {
	if e.Term != m.term || e.Seq <= m.lastSeq {
		return false
	}
	for m.lastSeq < e.Seq {
		m.lastSeq++
		m.clockCut = max(e.At, m.clockCut+1)
		m.cutAt[m.lastSeq], m.batches[m.lastSeq] = m.clockCut, nil
	}
	return true
}

func (m *model) release(e Release) bool {
	upTo := e.Seq
	if e.Term != m.term || e.Seq > m.lastSeq {
		return false
	}
	for _, k := range m.sinks {
		upTo = min(upTo, k.cursor-1)
	}
	for _, p := range m.parked {
		if p.seq > 0 {
			upTo = min(upTo, p.seq-1)
		}
	}
	if upTo <= m.released {
		return false
	}
	for ; m.released < upTo; m.released++ {
		delete(m.batches, m.released+1)
	}
	return true
}
