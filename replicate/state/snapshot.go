package state

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"slices"

	"forebay/internal/record"
)

// A snapshot is snapshotMagic, snapshotVersion, the fields of the state, and the
// CRC-32C of all that, little-endian.
const (
	snapshotMagic   = "FBst"
	snapshotVersion = 1
)

func castagnoli(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// Marshal appends the snapshot of the state to dst. Equal states give equal bytes.
func (s *State) Marshal(dst []byte) []byte {
	from := len(dst)
	c := coder{buf: append(append(dst, snapshotMagic...), snapshotVersion)}
	s.fields(&c)
	return binary.LittleEndian.AppendUint32(c.buf, castagnoli(c.buf[from:]))
}

// Unmarshal reads what Marshal wrote; nothing of data is kept. It takes
// only what it would write itself. Errors are a *FormatError, or wrap ErrVersion.
func Unmarshal(data []byte) (*State, error) {
	head := len(snapshotMagic) + 1
	if len(data) < head+4 || string(data[:head-1]) != snapshotMagic {
		return nil, &FormatError{What: "this is no snapshot of a lane", Offset: 0}
	}
	if v := data[head-1]; v != snapshotVersion {
		return nil, fmt.Errorf("%w: snapshot in version %d", ErrVersion, v)
	}
	body := data[:len(data)-4]
	if castagnoli(body) != binary.LittleEndian.Uint32(data[len(body):]) {
		return nil, &FormatError{What: "checksum of the snapshot is wrong", Offset: len(body)}
	}
	s := New()
	c := coder{buf: body, off: head, reading: true, names: map[string]string{}}
	s.fields(&c)
	if c.err == nil && c.off != len(body) {
		c.fail("bytes after the snapshot")
	}
	if c.err == nil {
		s.rebuild(&c)
	}
	if c.err != nil {
		return nil, c.err
	}
	if again := s.Marshal(make([]byte, 0, len(data))); !bytes.Equal(again, data) {
		return nil, &FormatError{What: "snapshot is not in its one form", Offset: differ(again, data)}
	}
	return s, nil
}

func differ(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

func (s *State) fields(c *coder) {
	c.bool(&s.formed)
	if s.formed {
		s.form.fields(c)
	}
	c.u64(&s.term)
	c.i64(&s.clock)
	c.u64(&s.applied)
	s.codeTopics(c)
	s.codeOpen(c)
	c.u64(&s.lastSeq)
	c.i64(&s.lastCutAt)
	list(c, &s.batches, codeBatch)
	list(c, &s.sinks, codeSink)
	s.parked.fields(c)
	list(c, &s.gaps, codeGap)
	c.u64(&s.gapsForgotten)
	list(c, &s.changes, codeChange)
	list(c, &s.dropped, codeDropped)
	codeSorted(c, &s.values, (*coder).str)
}

// codeSorted codes a map by its sorted keys.
func codeSorted[V any](c *coder, m *map[string]V, value func(*coder, *V)) {
	keys := slices.Sorted(maps.Keys(*m))
	list(c, &keys, func(c *coder, k *string) {
		c.str(k)
		v := (*m)[*k]
		value(c, &v)
		if c.reading {
			(*m)[*k] = v
		}
	})
}

func (s *State) codeTopics(c *coder) {
	codeSorted(c, &s.topics, func(c *coder, t **topic) {
		if c.reading {
			*t = &topic{partitions: map[int32]*partition{}}
		}
		c.id((*[16]byte)(&(*t).id))
		numbers := slices.Sorted(maps.Keys((*t).partitions))
		list(c, &numbers, func(c *coder, n *int32) {
			c.i32(n)
			p := (*t).partitions[*n]
			if c.reading {
				p = &partition{topic: *t, number: *n}
				(*t).partitions[*n] = p
			}
			c.i64(&p.next)
			c.bool(&p.split)
			list(c, &p.runs, codeRun)
		})
	})
}

func codeRun(c *coder, r *run) {
	c.i64(&r.first)
	c.i64(&r.last)
}

func (s *State) codeOpen(c *coder) {
	o := &s.open
	c.i64(&o.records)
	c.i64(&o.bytes)
	c.u64(&o.after)
	c.u64(&o.first)
	c.u64(&o.last)
	c.ascending(&o.skip)
	list(c, &o.early, number)
	list(c, &s.large, func(c *coder, b **largeBlock) {
		if c.reading {
			*b = &largeBlock{}
		}
		list(c, &(*b).spans, codeSpan)
		parts := uint32((*b).parts)
		if c.u32(&parts); c.reading {
			(*b).parts = int(parts)
		}
		c.ascending(&(*b).indexes)
	})
}

func codeSpan(c *coder, sp *record.Span) {
	c.str(&sp.Topic)
	c.id((*[16]byte)(&sp.TopicID))
	c.i32(&sp.Partition)
	c.i64(&sp.Base)
	c.i64(&sp.First)
	c.i64(&sp.Last)
	c.i64(&sp.Records)
	c.i64(&sp.Bytes)
}

func codeBatch(c *coder, b *batch) {
	c.i64(&b.cutAt)
	c.i64(&b.records)
	c.i64(&b.bytes)
	c.u64(&b.first)
	c.u64(&b.last)
	c.ascending(&b.skip)
	c.ascending(&b.early)
	list(c, &b.ranges, func(c *coder, r *record.Range) {
		c.str(&r.Topic)
		c.i32(&r.Partition)
		c.i64(&r.First)
		c.i64(&r.Last)
	})
	list(c, &b.dones, func(c *coder, d *done) {
		c.str(&d.sink)
		c.u32(&d.attempts)
		c.i64(&d.startedAt)
		c.i64(&d.doneAt)
	})
}

func codeSink(c *coder, k **sink) {
	if c.reading {
		*k = &sink{}
	}
	c.str(&(*k).name)
	c.str(&(*k).destination)
	c.u64(&(*k).cursor)
	c.bool(&(*k).paused)
	c.i64(&(*k).parked)
	c.i64(&(*k).dropped)
	list(c, &(*k).excluded.places, func(c *coder, e *exclusion) {
		c.str(&e.topic)
		c.i32(&e.partition)
		list(c, &e.runs, codeRun)
	})
}

func (p *parkedRecords) fields(c *coder) {
	c.u64(&p.lastID)
	list(c, &p.refs, func(c *coder, r *ParkedRef) {
		c.u64(&r.ID)
		c.str(&r.Sink)
		c.u32(&r.Batch.Lane)
		c.u64(&r.Batch.Seq)
		codeRecordID(c, &r.Record)
		c.str(&r.Reason)
		c.i64(&r.Bytes)
		c.i64(&r.At)
		c.ascending(&r.Indexes)
		c.bool(&r.Copied)
	})
	ids := slices.Sorted(maps.Keys(p.copying))
	list(c, &ids, func(c *coder, id *uint64) {
		c.u64(id)
		v := p.copying[*id]
		if c.reading {
			v = &copying{}
			if p.copying == nil {
				p.copying = map[uint64]*copying{}
			}
			p.copying[*id] = v
		}
		c.u32(&v.parts)
		c.u32(&v.checksum)
		c.ascending(&v.indexes)
	})
}

func codeGap(c *coder, g *record.Gap) {
	c.str(&g.Topic)
	c.id((*[16]byte)(&g.TopicID))
	c.i32(&g.Partition)
	c.i64(&g.First)
	c.i64(&g.Last)
	codeReason(c, &g.Reason)
	c.i64(&g.At)
}

func codeChange(c *coder, t *TopicReplaced) {
	c.str(&t.Topic)
	c.id((*[16]byte)(&t.Old))
	c.id((*[16]byte)(&t.New))
	c.u64(&t.Suspect)
	c.u64(&t.Index)
	c.i64(&t.At)
}

func codeDropped(c *coder, d *DroppedRecord) {
	c.str(&d.Sink)
	c.u32(&d.Batch.Lane)
	c.u64(&d.Batch.Seq)
	codeRecordID(c, &d.Record)
	c.str(&d.Reason)
	c.i64(&d.At)
}

// rebuild makes what a snapshot does not carry, and refuses one that no run of
// entries could have led to, as far as applying relies on it.
func (s *State) rebuild(c *coder) {
	sound := func(ok bool, what string) {
		if !ok {
			c.fail("snapshot contradicts itself: " + what)
		}
	}
	for name, t := range s.topics {
		t.name = name
		for _, p := range t.partitions {
			sound(p.next >= 0 && p.number >= 0, "position of a partition")
			if len(p.runs) > 0 {
				s.open.touched = append(s.open.touched, p)
			}
		}
	}
	o := &s.open
	sound((o.records > 0) == (o.first > 0) && (o.records > 0) == (len(o.touched) > 0) && o.records >= 0 && o.bytes >= 0, "open batch")
	sound(o.first <= o.last && o.last <= s.applied && o.after <= s.applied, "bounds of the open batch")
	slices.SortFunc(o.touched, byPlace)
	for _, b := range s.large {
		sound(len(b.spans) > 0 && len(b.indexes) > 0 && len(b.indexes) < b.parts, "large block")
		for _, sp := range b.spans {
			p := s.partition(sp.Topic, sp.Partition)
			if p == nil || p.pending != nil || p.next != sp.Base {
				sound(false, "large block")
				return
			}
			p.pending = b
			b.partitions = append(b.partitions, p)
		}
	}
	sound(uint64(len(s.batches)) <= s.lastSeq && s.lastSeq < math.MaxUint64, "number of batches")
	s.rebuildBatches(sound)
	for i, k := range s.sinks {
		sound(i == 0 || s.sinks[i-1].name < k.name, "sinks")
		sound(k.cursor > s.released() && k.cursor <= s.lastSeq+1, "cursor of a sink")
		for _, e := range k.excluded.places {
			for _, r := range e.runs {
				sound(0 <= r.first && r.first <= r.last && r.last < math.MaxInt64, "excluded records")
				k.excluded.records += int(r.last - r.first + 1)
			}
		}
	}
	s.parked.rebuild(sound)
}

func (s *State) rebuildBatches(sound func(bool, string)) {
	batches := s.batches
	s.batches = make([]batch, 0, len(batches))
	for _, b := range batches {
		sound(b.first > 0 && b.first <= b.last && b.last <= s.applied, "batch")
		void := b.records == 0 && b.bytes == 0 && b.first == b.last && len(b.ranges)+len(b.skip)+len(b.early) == 0
		sound(b.records > 0 || void, "batch without records")
		s.ranges += len(b.ranges)
		s.push(b)
	}
}

func (p *parkedRecords) rebuild(sound func(bool, string)) {
	for i := range p.refs {
		r := &p.refs[i]
		sound(r.ID <= p.lastID && (i == 0 || p.refs[i-1].ID < r.ID) && len(r.Indexes) > 0 && r.Bytes >= 0, "parked records")
		p.bytes += r.size()
		if r.Copied && len(r.Indexes) > 0 {
			p.places = insert(p.places, r.Indexes[0])
		}
	}
	for id, v := range p.copying {
		sound(p.find(id) != nil && len(v.indexes) > 0 && len(v.indexes) < int(v.parts), "copies")
	}
}
